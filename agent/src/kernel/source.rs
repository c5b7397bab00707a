//! The kernel as the pipeline's source.

use std::sync::atomic::AtomicBool;

use culprit_proto::v1::{NodeStats, ProbeCounters, ProbeStatus};

use super::{Kernel, RingReader, Tables, log::KernelLog};
use crate::{
    pipeline::source::{BadRecord, Draft, Listening, Names, Observation, Reader, Source},
    probes::Decoder,
};

/// A ring reader with its decoder.
struct Decoding {
    reader: RingReader,
    decoder: Decoder,
    /// For kills without a limit owner; None where it cannot be read.
    log: Option<KernelLog>,
}

impl Reader for Decoding {
    fn run(
        self: Box<Self>,
        stop: &AtomicBool,
        give: &mut dyn FnMut(Result<Observation, BadRecord>),
    ) {
        let Self {
            reader,
            mut decoder,
            mut log,
        } = *self;
        let mut count = 0u32;
        reader.run(stop, &mut |record| {
            count = count.wrapping_add(1);
            if count.is_multiple_of(256) {
                decoder.refresh();
            }
            let mut observation = decoder.decode(record);
            if let (Ok(Observation::Draft(draft)), Some(log)) = (&mut observation, &mut log) {
                log.amend(draft);
            }
            give(observation);
        });
    }
}

impl Source for Kernel {
    fn statuses(&self) -> Vec<ProbeStatus> {
        Self::statuses(self)
    }

    fn take_reader(&mut self) -> Option<Box<dyn Reader>> {
        let decoder = self.decoder();
        let reader = Self::take_reader(self)?;
        let log = self.take_log();
        Some(Box::new(Decoding {
            reader,
            decoder,
            log,
        }))
    }

    fn seed(&mut self) {
        if let Err(reason) = Self::seed(self) {
            tracing::warn!(
                reason,
                "connections open before the agent are found only when they are used"
            );
            self.limit(
                "tcp_flow",
                &format!(
                    "connections open before the agent are found only when they are used ({reason})"
                ),
            );
        }
    }

    fn counters(&self) -> Vec<ProbeCounters> {
        Self::counters(self)
    }

    fn node_stats(&self) -> NodeStats {
        Self::node_stats(self)
    }

    fn sweep_flows(&mut self, give: &mut dyn FnMut(Draft)) {
        Self::sweep_flows(self, give);
    }

    fn take_tables(&mut self) -> Option<Tables> {
        Self::take_tables(self)
    }

    fn take_listening(&mut self) -> Option<Box<dyn Listening>> {
        Self::take_listening(self)
    }

    fn take_names(&mut self) -> Option<Box<dyn Names>> {
        Self::take_names(self)
    }

    fn detach(&mut self) {
        Self::detach(self);
    }
}
