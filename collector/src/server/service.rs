//! The service Collector, one step below the generated one: messages come as
//! bytes, so that they can be looked at before they are decoded.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use culprit_proto::limits::MAX_MESSAGE_BYTES;
use culprit_proto::v1::CollectorMessage;
use culprit_proto::v1::collector_server::SERVICE_NAME;
use prost::Message;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};

use super::body::{Meter, Metered};
use super::refusals::Refusals;
use super::stream::Streams;

/// Path of the one method.
const STREAM: &str = "/culprit.v1.Collector/Stream";

#[derive(Clone)]
pub(super) struct CollectorService(pub(super) Arc<Streams>);

impl NamedService for CollectorService {
    const NAME: &'static str = SERVICE_NAME;
}

impl Service<http::Request<tonic::body::Body>> for CollectorService {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let streams = Arc::clone(&self.0);
        Box::pin(async move {
            if request.uri().path() != STREAM {
                return Ok(Status::unimplemented("there is no such method").into_http());
            }
            if let Some(encoding) = request.headers().get("grpc-encoding")
                && encoding != "identity"
            {
                // tonic refuses it below, in the words of gRPC.
                Refusals::count(&streams.refusals.faults);
            }
            let meter = streams.meter();
            let request = request.map(|body| Metered::new(body, Arc::clone(&meter)));
            let mut grpc = Grpc::new(Raw)
                .apply_max_message_size_config(Some(MAX_MESSAGE_BYTES), Some(MAX_MESSAGE_BYTES));
            Ok(grpc.streaming(Method { streams, meter }, request).await)
        })
    }
}

struct Method {
    streams: Arc<Streams>,
    meter: Arc<Meter>,
}

impl StreamingService<Bytes> for Method {
    type Response = CollectorMessage;
    type ResponseStream = ReceiverStream<Result<CollectorMessage, Status>>;
    type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let answer = self.streams.begin(request, Arc::clone(&self.meter));
        Box::pin(std::future::ready(answer))
    }
}

/// Bytes in, messages out.
struct Raw;

impl Codec for Raw {
    type Encode = CollectorMessage;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = CollectorMessage;
    type Error = Status;

    fn encode(&mut self, message: CollectorMessage, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        message
            .encode(out)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(bytes.copy_to_bytes(bytes.remaining())))
    }
}
