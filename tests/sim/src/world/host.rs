//! A collector: what it hears, commits and says.

use culprit_proto::v1::{
    AgentMessage, CollectorMessage, Gap, Hello, Lane, agent_message, collector_message,
};

use super::World;
use crate::adapter::Reply;
use crate::network::Conn;
use crate::violation::{Violation, hold};

/// What a collector has heard and not come to.
#[derive(Debug)]
pub(super) enum Job {
    Message(Conn, [u8; 16], AgentMessage),
    Close(Conn),
}

/// What a collector has committed and not said.
#[derive(Debug)]
pub(super) struct Answer {
    conn: Conn,
    spool: [u8; 16],
    /// `None`: the stream ends.
    message: Option<CollectorMessage>,
}

/// What a message was, for the ledger.
enum About {
    Hello(Hello),
    Gap(Gap),
    Other,
}

impl World {
    /// The collector comes to the oldest `count` jobs.
    pub(super) fn commit(&mut self, collector: usize, count: usize) -> Result<(), Violation> {
        let mut group = Vec::new();
        let mut about = Vec::new();
        for _ in 0..count {
            match self.hosts[collector].received.pop_front() {
                Some(Job::Message(conn, spool, message)) => {
                    about.push((spool, what(&message)));
                    group.push((conn, message));
                }
                Some(Job::Close(conn)) => {
                    self.commit_group(collector, &mut group, &mut about)?;
                    self.hosts[collector].store.close(conn)?;
                }
                None => break,
            }
        }
        self.commit_group(collector, &mut group, &mut about)
    }

    fn commit_group(
        &mut self,
        collector: usize,
        group: &mut Vec<(Conn, AgentMessage)>,
        about: &mut Vec<([u8; 16], About)>,
    ) -> Result<(), Violation> {
        if group.is_empty() {
            return Ok(());
        }
        let host = &mut self.hosts[collector];
        let replies = host.store.commit(std::mem::take(group))?;
        let rows = host.store.rows()?;
        hold!(
            replies.len() == about.len(),
            "collector {collector} replied {} times to {} messages",
            replies.len(),
            about.len()
        );
        self.note(|| format!("collector {collector} commits {} messages", replies.len()));
        self.ledger.rows(collector, &rows)?;
        for ((conn, reply), (spool, about)) in replies.into_iter().zip(about.drain(..)) {
            match reply {
                Reply::Messages(messages) => {
                    self.understand(collector, spool, &about, &messages)?;
                    let answers = messages.into_iter().map(|message| Answer {
                        conn,
                        spool,
                        message: Some(message),
                    });
                    self.hosts[collector].unsent.extend(answers);
                }
                Reply::End(why) => {
                    self.note(|| format!("collector {collector} ends stream {conn}: {why}"));
                    self.report.refused += 1;
                    self.hosts[collector].unsent.push_back(Answer {
                        conn,
                        spool,
                        message: None,
                    });
                }
            }
        }
        Ok(())
    }

    /// Tells the ledger what the replies to one message mean.
    fn understand(
        &mut self,
        collector: usize,
        spool: [u8; 16],
        about: &About,
        replies: &[CollectorMessage],
    ) -> Result<(), Violation> {
        use collector_message::Message;
        let mut resync = false;
        for reply in replies {
            match &reply.message {
                Some(Message::Reject(reject)) => {
                    self.report.rejected += reject.last - reject.first + 1;
                    let lane = lane(reject.lane)?;
                    let (first, last) = (reject.first, reject.last);
                    self.ledger.rejected(collector, spool, lane, first, last)?;
                }
                Some(Message::Resync(_)) => {
                    resync = true;
                    self.report.resyncs += 1;
                }
                _ => {}
            }
        }
        match about {
            About::Gap(gap) if !resync && !replies.is_empty() => {
                self.report.gaps += 1;
                self.ledger.gap(collector, spool, lane(gap.lane)?, gap);
            }
            About::Hello(hello) => {
                for cursor in &hello.lanes {
                    let lane = lane(cursor.lane)?;
                    self.ledger.resumed(collector, spool, lane, cursor.acked)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The collector says the oldest `count` answers.
    pub(super) fn flush(&mut self, collector: usize, count: usize) -> Result<(), Violation> {
        use collector_message::Message;
        for _ in 0..count {
            let Some(answer) = self.hosts[collector].unsent.pop_front() else {
                break;
            };
            let spool = answer.spool;
            match answer.message.as_ref().and_then(|m| m.message.as_ref()) {
                Some(Message::Ack(ack)) => {
                    let lane = lane(ack.lane)?;
                    self.ledger.says(collector, spool, lane, ack.committed)?;
                }
                Some(Message::Welcome(welcome)) => {
                    for resume in &welcome.lanes {
                        let lane = lane(resume.lane)?;
                        self.ledger
                            .says(collector, spool, lane, resume.resume_from)?;
                    }
                }
                _ => {}
            }
            match answer.message {
                Some(message) => self.network.answer(answer.conn, message),
                None => self.end(collector, answer.conn),
            }
        }
        Ok(())
    }

    /// The collector ends a stream; what it said before still arrives.
    fn end(&mut self, collector: usize, conn: Conn) {
        if let Some(stream) = self.network.get(conn)
            && !stream.collector_left
        {
            stream.collector_left = true;
            stream.up.clear();
            self.hosts[collector].received.push_back(Job::Close(conn));
        }
    }

    pub(super) fn crash(&mut self, collector: usize) -> Result<(), Violation> {
        self.note(|| format!("collector {collector} dies"));
        self.drop_streams(collector);
        self.hosts[collector].store.crash()?;
        let rows = self.hosts[collector].store.rows()?;
        self.ledger.rows(collector, &rows)
    }

    pub(super) fn lose(&mut self, collector: usize) -> Result<(), Violation> {
        self.note(|| format!("collector {collector} dies and loses its store"));
        self.drop_streams(collector);
        self.ledger.lost(collector);
        self.hosts[collector].store.lose()
    }

    fn drop_streams(&mut self, collector: usize) {
        self.hosts[collector].received.clear();
        self.hosts[collector].unsent.clear();
        for conn in self.network.which(|s| s.collector == collector) {
            self.network.cut(conn, &mut self.dice);
            if let Some(stream) = self.network.get(conn) {
                stream.collector_left = true;
                stream.up.clear();
            }
        }
    }
}

fn what(message: &AgentMessage) -> About {
    match &message.message {
        Some(agent_message::Message::Hello(hello)) => About::Hello(hello.clone()),
        Some(agent_message::Message::Gap(gap)) => About::Gap(gap.clone()),
        _ => About::Other,
    }
}

fn lane(number: i32) -> Result<Lane, Violation> {
    Lane::try_from(number).map_err(|_| Violation::new(format!("there is no lane {number}")))
}
