use std::path::PathBuf;

use anyhow::Context;
use culprit_proto::limits::MAX_MESSAGE_BYTES;
use culprit_proto::text;
use culprit_proto::v1::query_client::QueryClient;
use culprit_proto::v1::{NodeStatus, NodesRequest, StoredEvent};
use tonic::transport::{Channel, Endpoint};

use super::args::SourceArgs;
use crate::store::{self, Query, Reader};

/// Where answers come from.
pub(super) enum Source {
    Store(PathBuf),
    Collector(Box<QueryClient<Channel>>),
}

impl Source {
    pub(super) async fn open(args: SourceArgs) -> anyhow::Result<Self> {
        if let Some(dir) = args.store {
            return Ok(Self::Store(dir));
        }
        let url = args.collector.context("give --store or --collector")?;
        let shown = text::escape(&url).into_owned();
        let endpoint = Endpoint::from_shared(url).with_context(|| {
            format!("--collector {shown}: not a URL such as http://127.0.0.1:4750")
        })?;
        let channel = endpoint
            .connect_timeout(std::time::Duration::from_secs(10))
            .connect()
            .await
            .with_context(|| format!("--collector {shown}: cannot connect"))?;
        let client = QueryClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        Ok(Self::Collector(Box::new(client)))
    }

    /// Calls `each` for every event, oldest first.
    pub(super) async fn events(
        self,
        query: &Query,
        mut each: impl FnMut(StoredEvent) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        match self {
            Self::Store(dir) => Reader::open(&dir)?.events(query, each),
            Self::Collector(mut client) => {
                let request = query.filter.to_events_request(&query.node);
                let mut events = client.events(request).await.map_err(status)?.into_inner();
                while let Some(event) = events.message().await.map_err(status)? {
                    each(event)?;
                }
                Ok(())
            }
        }
    }

    pub(super) async fn nodes(self) -> anyhow::Result<Vec<NodeStatus>> {
        match self {
            Self::Store(dir) => {
                let mut nodes = Reader::open(&dir)?.nodes()?;
                if !store::in_use(&dir) {
                    // What a killed collector left behind.
                    for node in &mut nodes {
                        node.connected = false;
                    }
                }
                Ok(nodes)
            }
            Self::Collector(mut client) => {
                let answer = client.nodes(NodesRequest {}).await.map_err(status)?;
                Ok(answer.into_inner().nodes)
            }
        }
    }
}

fn status(status: tonic::Status) -> anyhow::Error {
    anyhow::anyhow!("the collector answered: {}", status.message())
}
