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

    /// Calls `each` for every node, or for this one, by name.
    pub(super) async fn nodes(
        self,
        node: &str,
        mut each: impl FnMut(NodeStatus) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut request = NodesRequest {
            node: node.to_owned(),
            ..NodesRequest::default()
        };
        // What a killed collector left behind is not connected.
        let (mut source, live) = match self {
            Self::Store(dir) => (Pages::Store(Reader::open(&dir)?), store::in_use(&dir)),
            Self::Collector(client) => (Pages::Collector(client), true),
        };
        loop {
            let page = match &mut source {
                Pages::Store(reader) => reader.nodes_page(&request)?,
                Pages::Collector(client) => {
                    let answer = client.nodes(request.clone()).await;
                    answer.map_err(status)?.into_inner()
                }
            };
            let last = page.nodes.last().map(|node| node.node.clone());
            for mut node in page.nodes {
                node.connected &= live;
                each(node)?;
            }
            match last {
                // A name that does not rise would be asked for for ever.
                Some(last) if page.more && last > request.after => request.after = last,
                _ => return Ok(()),
            }
        }
    }
}

enum Pages {
    Store(Reader),
    Collector(Box<QueryClient<Channel>>),
}

fn status(status: tonic::Status) -> anyhow::Error {
    anyhow::anyhow!("the collector answered: {}", status.message())
}
