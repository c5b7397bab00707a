//! The bytes of a stream as they come in: cut into gRPC's messages, each of
//! which is paid for before it is let through.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use culprit_proto::limits::MAX_MESSAGE_BYTES;
use http_body::{Body, Frame};
use tokio::time::{Sleep, sleep};
use tonic::Status;
use tonic::codegen::StdError;

use super::memory::{Class, Memory, Permit};
use super::refusals::Refusals;

/// Largest Hello, bytes: the probes have 64 KiB, the rest is small.
const MAX_HELLO_BYTES: usize = 80 * 1024;
/// gRPC's frame: a flag, and four bytes of length.
const HEADER: usize = 5;

/// What the reader of a stream and its body share.
#[derive(Debug)]
pub(super) struct Meter {
    memory: Arc<Memory>,
    pub(super) refusals: Arc<Refusals>,
    patience: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    class: Class,
    /// Of the messages let through and not taken yet: one, as the reader
    /// takes each before it asks for more.
    paid: VecDeque<Permit>,
}

impl Meter {
    /// For a stream that has said nothing yet. A message that has begun must
    /// be there within `patience`.
    pub(super) fn new(
        memory: Arc<Memory>,
        refusals: Arc<Refusals>,
        patience: Duration,
    ) -> Arc<Self> {
        Arc::new(Self {
            memory,
            refusals,
            patience,
            state: Mutex::new(State {
                class: Class::Hello,
                paid: VecDeque::new(),
            }),
        })
    }

    /// What the stream is from now on.
    pub(super) fn set_class(&self, class: Class) {
        self.with(|state| state.class = class);
    }

    /// The memory of the message that was read last.
    pub(super) fn take(&self) -> Option<Permit> {
        self.with(|state| state.paid.pop_front())
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

type Paying = Pin<Box<dyn Future<Output = Option<Permit>> + Send>>;

enum Part {
    /// So many bytes of a header are there.
    Header([u8; HEADER], usize),
    /// The header is there; its message waits for memory.
    Paying([u8; HEADER], Paying),
    /// So many bytes of the message are to come.
    Message(usize),
}

/// A body that passes on what is paid for.
pub(super) struct Metered<B> {
    body: Pin<Box<B>>,
    meter: Arc<Meter>,
    part: Part,
    /// What came and is not passed on.
    rest: Bytes,
    timer: Pin<Box<Sleep>>,
}

impl<B> Metered<B> {
    pub(super) fn new(body: B, meter: Arc<Meter>) -> Self {
        Self {
            body: Box::pin(body),
            timer: Box::pin(sleep(meter.patience)),
            meter,
            part: Part::Header([0; HEADER], 0),
            rest: Bytes::new(),
        }
    }

    /// What a complete header says: the message's length.
    fn length(&self, header: [u8; HEADER]) -> Result<usize, Status> {
        let [flag, length @ ..] = header;
        let class = self.meter.with(|state| state.class);
        let most = match class {
            Class::Hello => MAX_HELLO_BYTES,
            Class::Critical | Class::Other => MAX_MESSAGE_BYTES,
        };
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        let problem = match flag {
            0 if length <= most => return Ok(length),
            0 => Status::out_of_range(format!("a message of {length} bytes; the limit is {most}")),
            1 => Status::unimplemented("compressed messages are not taken; send them as they are"),
            flag => {
                Status::invalid_argument(format!("a message begins with {flag}; that is no gRPC"))
            }
        };
        Refusals::count(&self.meter.refusals.faults);
        Err(problem)
    }
}

impl<B> Body for Metered<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<StdError>,
{
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        let this = &mut *self;
        loop {
            match &mut this.part {
                Part::Paying(header, paying) => {
                    let header = *header;
                    let Some(permit) = ready!(paying.as_mut().poll(context)) else {
                        let status = Status::internal("no memory for a message");
                        return Poll::Ready(Some(Err(status.into())));
                    };
                    this.meter.with(|state| state.paid.push_back(permit));
                    // It was checked before it was paid for.
                    this.part = Part::Message(this.length(header)?);
                    let deadline = tokio::time::Instant::now() + this.meter.patience;
                    this.timer.as_mut().reset(deadline);
                    let header = Bytes::copy_from_slice(&header);
                    return Poll::Ready(Some(Ok(Frame::data(header))));
                }
                Part::Message(0) => this.part = Part::Header([0; HEADER], 0),
                Part::Message(left) if this.rest.has_remaining() => {
                    let part = this.rest.split_to(this.rest.len().min(*left));
                    *left -= part.len();
                    return Poll::Ready(Some(Ok(Frame::data(part))));
                }
                Part::Header(header, have) if this.rest.has_remaining() => {
                    let take = this.rest.len().min(HEADER - *have);
                    this.rest.copy_to_slice(&mut header[*have..*have + take]);
                    *have += take;
                    if *have == HEADER {
                        let header = *header;
                        let length = this.length(header)?;
                        let class = this.meter.with(|state| state.class);
                        let memory = Arc::clone(&this.meter.memory);
                        let paying = Box::pin(memory.message(class, length));
                        this.part = Part::Paying(header, paying);
                    }
                }
                part @ (Part::Message(_) | Part::Header(..)) => {
                    let begun = !matches!(part, Part::Header(_, 0));
                    let waits = matches!(part, Part::Message(_));
                    match this.body.as_mut().poll_frame(context) {
                        Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                            Ok(data) => this.rest = data,
                            Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                        },
                        Poll::Ready(Some(Err(error))) => {
                            return Poll::Ready(Some(Err(error.into())));
                        }
                        Poll::Ready(None) if begun => {
                            let status =
                                Status::invalid_argument("the stream ends within a message");
                            return Poll::Ready(Some(Err(status.into())));
                        }
                        Poll::Ready(None) => return Poll::Ready(None),
                        Poll::Pending if waits => {
                            ready!(this.timer.as_mut().poll(context));
                            Refusals::count(&this.meter.refusals.slow_senders);
                            let status = Status::deadline_exceeded(format!(
                                "a message did not come to its end within {:?}",
                                this.meter.patience
                            ));
                            return Poll::Ready(Some(Err(status.into())));
                        }
                        Poll::Pending => return Poll::Pending,
                    }
                }
            }
        }
    }
}
