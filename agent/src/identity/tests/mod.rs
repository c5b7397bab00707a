//! Tests of the whole identifier, against directories that look like cgroup
//! hierarchies and a fake runtime behind a real socket.
#![expect(clippy::unwrap_used, reason = "tests")]

mod contact;
mod crio;
mod fixture;
mod hostile;
mod names;
mod paths;
mod places;
mod pods;
mod processes;
