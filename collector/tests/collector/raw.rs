//! A client that speaks HTTP/2 and no more: it can say what no gRPC client
//! would.

use bytes::{BufMut, Bytes, BytesMut};
use culprit_proto::v1::{AgentMessage, Hello, agent_message};
use h2::SendStream;
use h2::client::{ResponseFuture, SendRequest};
use prost::Message;
use tokio::net::TcpStream;

pub(crate) struct Raw {
    requests: SendRequest<Bytes>,
    connection: tokio::task::JoinHandle<()>,
}

impl Drop for Raw {
    /// Cuts the connection.
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// One call of the method Stream.
pub(crate) struct Call {
    pub(crate) answer: ResponseFuture,
    pub(crate) out: SendStream<Bytes>,
}

impl Raw {
    pub(crate) async fn connect(url: &str) -> Self {
        Self::with_window(url, 65_535).await
    }

    /// A client that takes so many bytes of each answer, and then no more.
    pub(crate) async fn with_window(url: &str, window: u32) -> Self {
        let address = url.trim_start_matches("http://");
        let socket = TcpStream::connect(address).await.unwrap();
        let (requests, connection) = h2::client::Builder::new()
            .initial_window_size(window)
            .handshake(socket)
            .await
            .unwrap();
        Self {
            requests,
            connection: tokio::spawn(async move {
                // However the server ends it.
                let _ = connection.await;
            }),
        }
    }

    /// `None` when the server took the connection away.
    pub(crate) async fn call(&mut self, headers: &[(&str, &str)]) -> Option<Call> {
        let mut request = http::Request::post("http://collector/culprit.v1.Collector/Stream")
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut requests = self.requests.clone().ready().await.ok()?;
        let request = request.body(()).unwrap();
        let (answer, out) = requests.send_request(request, false).ok()?;
        Some(Call { answer, out })
    }
}

impl Call {
    pub(crate) fn send(&mut self, bytes: impl Into<Bytes>) {
        self.out.send_data(bytes.into(), false).unwrap();
    }

    /// The gRPC status and its text, whatever came before; 14 when the stream
    /// was cut.
    pub(crate) async fn status(self) -> (u32, String) {
        let Self { answer, out: _out } = self;
        let Ok(response) = answer.await else {
            return (14, "cut".to_owned());
        };
        let (parts, mut body) = response.into_parts();
        let mut headers = parts.headers;
        if !headers.contains_key("grpc-status") {
            while let Some(Ok(data)) = body.data().await {
                body.flow_control().release_capacity(data.len()).unwrap();
            }
            match body.trailers().await {
                Ok(Some(trailers)) => headers = trailers,
                _ => return (14, "cut".to_owned()),
            }
        }
        let text = |name| headers.get(name).map_or("", |v| v.to_str().unwrap());
        (
            text("grpc-status").parse().unwrap_or(99),
            text("grpc-message").to_owned(),
        )
    }
}

/// A message as gRPC frames it, with any flag and length.
pub(crate) fn framed(flag: u8, length: usize, bytes: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(5 + bytes.len());
    out.put_u8(flag);
    out.put_u32(u32::try_from(length).unwrap());
    out.put_slice(bytes);
    out.freeze()
}

pub(crate) fn message(message: agent_message::Message) -> Bytes {
    let message = AgentMessage {
        message: Some(message),
    };
    let bytes = message.encode_to_vec();
    framed(0, bytes.len(), &bytes)
}

pub(crate) fn hello(hello: Hello) -> Bytes {
    message(agent_message::Message::Hello(hello))
}
