//! Questions to an agent's socket and to a collector, and their answers.

use std::sync::OnceLock;

use culprit_collector::store::{Query, Reader};
use culprit_proto::kind::Filter;
use culprit_proto::v1::{
    DumpRequest, Event, EventsRequest, NodesRequest, NodesResponse, StatusRequest, StatusResponse,
    StoredEvent,
};
use culprit_proto::{json, text};
use prost::Message;

use super::event_text;
use crate::seeds::{events, store};

/// Questions to an agent, and the answer to `status`.
pub(crate) fn local(data: &[u8]) {
    let _ = StatusRequest::decode(data);
    if let Ok(request) = DumpRequest::decode(data)
        && let Ok(filter) = Filter::try_from(&request)
    {
        let again = filter.to_dump_request(request.follow);
        assert_eq!(Filter::try_from(&again).as_ref(), Ok(&filter));
        for event in events::samples() {
            let _ = filter.matches(&event);
        }
    }
    if let Ok(status) = StatusResponse::decode(data) {
        plain(&json::to_line(&status));
    }
}

/// Questions to a collector: the store gives what going through all events
/// gives. And its answers, as a client shows them.
pub(crate) fn query(data: &[u8]) {
    let _ = NodesRequest::decode(data);
    if let Ok(request) = EventsRequest::decode(data)
        && let Ok(filter) = Filter::try_from(&request)
    {
        let again = filter.to_events_request(&request.node);
        assert_eq!(Filter::try_from(&again).as_ref(), Ok(&filter));
        let query = Query {
            filter,
            node: request.node,
        };
        compare(&query);
    }
    if let Ok(nodes) = NodesResponse::decode(data) {
        plain(&json::to_line(&nodes));
    }
    if let Ok(stored) = StoredEvent::decode(data)
        && let Some(record) = stored.record
    {
        event_text::run(&record.event);
        if let Ok(line) = json::event_line(&stored.node, &record) {
            assert!(line.chars().all(text::is_plain));
        }
    }
}

fn plain(line: &Result<String, json::JsonError>) {
    let line = line.as_ref().unwrap_or_else(|error| panic!("{error}"));
    assert!(line.chars().all(text::is_plain), "{line:?}");
}

fn compare(query: &Query) {
    static ALL: OnceLock<Vec<StoredEvent>> = OnceLock::new();
    let ask = |query: &Query| {
        store::with(|reader| {
            read(reader, query).unwrap_or_else(|error| panic!("{query:?}: {error}"))
        })
    };
    let all = ALL.get_or_init(|| ask(&Query::default()));
    let mut wanted: Vec<&StoredEvent> = all
        .iter()
        .filter(|stored| {
            let record = stored.record.as_ref();
            let event = record.and_then(|record| Event::decode(record.event.clone()).ok());
            (query.node.is_empty() || stored.node == query.node)
                && event.is_some_and(|event| query.filter.matches(&event))
        })
        .collect();
    if query.filter.last > 0 {
        let last = usize::try_from(query.filter.last).unwrap_or(usize::MAX);
        wanted.drain(..wanted.len().saturating_sub(last));
    }
    let found = ask(query);
    assert!(
        found.iter().eq(wanted.iter().copied()),
        "{query:?}: the store has {}, there are {}",
        found.len(),
        wanted.len()
    );
}

fn read(
    reader: &Reader,
    query: &Query,
) -> Result<Vec<StoredEvent>, culprit_collector::store::StoreError> {
    let mut after = reader.start(query)?;
    let mut found = Vec::new();
    loop {
        let page = reader.page(query, after)?;
        found.extend(page.events);
        after = page.next;
        if after.is_none() {
            return Ok(found);
        }
    }
}
