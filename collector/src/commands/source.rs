use std::path::PathBuf;

use anyhow::Context;
use culprit_proto::limits::MAX_MESSAGE_BYTES;
use culprit_proto::text;
use culprit_proto::v1::query_client::QueryClient;
use culprit_proto::v1::{NodeStatus, NodesRequest, StoredEvent};
use culprit_tls::{Client, Files, Heard};
use tonic::transport::{Channel, Endpoint};

use super::args::{ClientTlsArgs, SourceArgs};
use crate::store::{self, Query, Reader};

/// Where answers come from.
pub(super) enum Source {
    Store(PathBuf),
    Collector(Box<QueryClient<Channel>>, Heard),
}

impl Source {
    pub(super) async fn open(args: SourceArgs, tls: ClientTlsArgs) -> anyhow::Result<Self> {
        if let Some(dir) = args.store {
            return Ok(Self::Store(dir));
        }
        let url = args.collector.context("give --store or --collector")?;
        let shown = text::escape(&url).into_owned();
        let endpoint = Endpoint::from_shared(url).with_context(|| {
            format!("--collector {shown}: not a URL such as http://127.0.0.1:4750")
        })?;
        let endpoint = endpoint.connect_timeout(std::time::Duration::from_secs(10));
        let https = endpoint.uri().scheme_str() == Some("https");
        let heard = Heard::default();
        let channel = match (https, client(tls)?) {
            (true, Some(tls)) => tls.connect_and_hear(endpoint, &heard).await,
            (false, None) => endpoint.connect().await,
            (true, None) => anyhow::bail!(
                "--collector {shown}: TLS needs a certificate; give --tls-ca, --tls-cert and --tls-key"
            ),
            (false, Some(_)) => anyhow::bail!(
                "--collector {shown}: --tls-ca is for TLS; write https://HOST:PORT, or leave the flag out"
            ),
        };
        let channel = channel.with_context(|| format!("--collector {shown}: cannot connect"))?;
        let client = QueryClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        Ok(Self::Collector(Box::new(client), heard))
    }

    /// Calls `each` for every event, oldest first.
    pub(super) async fn events(
        self,
        query: &Query,
        mut each: impl FnMut(StoredEvent) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        match self {
            Self::Store(dir) => Reader::open(&dir)?.events(query, each),
            Self::Collector(mut client, heard) => {
                let request = query.filter.to_events_request(&query.node);
                let mut events = client
                    .events(request)
                    .await
                    .map_err(|s| status(&s, &heard))?
                    .into_inner();
                while let Some(event) = events.message().await.map_err(|s| status(&s, &heard))? {
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
            Self::Collector(client, heard) => (Pages::Collector(client, heard), true),
        };
        loop {
            let page = match &mut source {
                Pages::Store(reader) => reader.nodes_page(&request)?,
                Pages::Collector(client, heard) => {
                    let answer = client.nodes(request.clone()).await;
                    answer.map_err(|s| status(&s, heard))?.into_inner()
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
    Collector(Box<QueryClient<Channel>>, Heard),
}

fn client(args: ClientTlsArgs) -> anyhow::Result<Option<Client>> {
    let (Some(ca), Some(cert), Some(key)) = (args.tls_ca, args.tls_cert, args.tls_key) else {
        return Ok(None);
    };
    let files = Files {
        ca,
        cert,
        key,
        ca_flag: "--tls-ca",
    };
    Ok(Some(Client::load(files, args.tls_server_name.as_deref())?))
}

fn status(status: &tonic::Status, heard: &Heard) -> anyhow::Error {
    match heard.get() {
        Some(why) => anyhow::anyhow!("the connection ended at once: {why}"),
        None => anyhow::anyhow!("the collector answered: {}", status.message()),
    }
}
