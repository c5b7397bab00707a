//! From one actor to one identity.

use culprit_proto::v1::identity::Source;
use culprit_proto::v1::{Container, Identity};

use super::cri::{Contact, Lookup};
use super::identifier::Identifier;
use super::log_names::Named;
use super::message::{bare_pod, cgroup, named_pod, pod, process};
use super::path::CgroupPath;
use super::place::{Place, ROOT};
use super::{Actor, CgroupClass, Resolution, workload};

impl Identifier {
    /// Who the actor is. Never waits: at most it reads three small files of
    /// `/proc/PID`, once a process.
    pub fn resolve(&self, actor: &Actor) -> Resolution {
        let mut who = Identity {
            process: process(actor, &self.processes.exe(actor, &self.counters)),
            netns: actor.netns,
            ..Identity::default()
        };
        if actor.kernel_thread {
            who.source = Source::Host.into();
        }
        let place = self.place(actor);
        self.describe(who, place)
    }

    /// Whose cgroup of the memory controller's hierarchy this is, such as the
    /// owner of a limit.
    pub fn resolve_cgroup(&self, memory_hierarchy_id: u64) -> Resolution {
        if memory_hierarchy_id == 0 {
            return self.describe(
                Identity::default(),
                Place::Nowhere("the kernel record names no cgroup"),
            );
        }
        let key = (self.hierarchies.memory_id(), memory_hierarchy_id);
        let place = self.find(key);
        self.describe(Identity::default(), place)
    }

    /// What a cgroup of the memory controller's hierarchy stands for.
    pub fn cgroup_class(&self, memory_hierarchy_id: u64) -> CgroupClass {
        let key = (self.hierarchies.memory_id(), memory_hierarchy_id);
        match self.find(key) {
            Place::Known(_, node) => node.parsed.class(),
            _ if memory_hierarchy_id == ROOT => CgroupClass::Root,
            _ => CgroupClass::Unknown,
        }
    }

    fn describe(&self, mut who: Identity, place: Place) -> Resolution {
        let (key, node) = match place {
            Place::Known(key, node) => (key, node),
            Place::New(key) | Place::Awaited(key) => {
                who.cgroup = Some(cgroup(key, ""));
                who.unresolved = format!("cgroup {} is being looked for", key.1);
                return if who.source() == Source::Host {
                    ready(who)
                } else {
                    Resolution::Waiting(who)
                };
            }
            Place::Lost(key) => {
                who.cgroup = Some(cgroup(key, ""));
                who.unresolved = format!("cgroup {} was gone before it was read", key.1);
                return ready(who);
            }
            Place::Nowhere(why) => {
                who.unresolved = why.to_owned();
                return ready(who);
            }
        };
        who.cgroup = Some(cgroup(key, &node.path));
        match &node.parsed.container {
            Some(container) => self.in_container(who, &node.parsed, &container.id),
            None => self.outside_container(who, &node.parsed),
        }
    }

    fn outside_container(&self, mut who: Identity, parsed: &CgroupPath) -> Resolution {
        let Some(uid) = &parsed.pod_uid else {
            who.source = Source::Host.into();
            return ready(who);
        };
        match self.store.pod_by_uid(uid) {
            Some(facts) => {
                who.pod = Some(pod(&facts, parsed.qos));
                who.source = Source::Cri.into();
            }
            None => {
                who.pod = Some(bare_pod(parsed));
                who.source = Source::CgroupPath.into();
                who.unresolved = match self.store.contact() {
                    Contact::Off => OFF.to_owned(),
                    Contact::Down { short, .. } => short,
                    Contact::Up(_) | Contact::Starting => {
                        "the container runtime has not named this pod".to_owned()
                    }
                };
            }
        }
        ready(who)
    }

    fn in_container(&self, mut who: Identity, parsed: &CgroupPath, id: &str) -> Resolution {
        let lookup = self.store.container(id);
        if let Lookup::Found(container, sandbox) = &lookup {
            who.container = Some(Container {
                id: id.to_owned(),
                name: container.name.clone(),
                image: container.image.clone(),
            });
            who.pod = named_pod(container, sandbox.as_ref(), parsed);
            who.source = Source::Cri.into();
            return ready(who);
        }
        who.container = Some(Container {
            id: id.to_owned(),
            ..Container::default()
        });
        who.source = Source::CgroupPath.into();
        who.pod = parsed
            .pod_uid
            .as_ref()
            .map(|uid| match self.store.pod_by_uid(uid) {
                Some(facts) => pod(&facts, parsed.qos),
                None => bare_pod(parsed),
            });
        if let Contact::Off | Contact::Down { .. } = self.store.contact()
            && let Some(named) = self.log_names.find(id)
        {
            self.ask(id);
            return ready(named_by_log(who, named));
        }
        let wait = match (self.store.contact(), lookup) {
            (Contact::Off, _) => Err(OFF.to_owned()),
            (Contact::Down { short, .. }, _) => {
                self.ask(id);
                Err(short)
            }
            (Contact::Up(socket), Lookup::NotFound) => {
                self.ask(id);
                Err(format!(
                    "the container runtime at {socket} does not know this container"
                ))
            }
            (Contact::Starting, _) => {
                self.ask(id);
                Ok("the container runtime has not listed its containers yet")
            }
            (Contact::Up(_), _) if self.ask(id) => {
                Ok("the container runtime is being asked about this container")
            }
            (Contact::Up(_), _) => Err("too many containers wait to be asked about".to_owned()),
        };
        match wait {
            Ok(why) => {
                who.unresolved = why.to_owned();
                Resolution::Waiting(who)
            }
            Err(why) => {
                who.unresolved = why;
                ready(who)
            }
        }
    }
}

/// What kubelet's link says; image, labels and addresses it does not.
fn named_by_log(mut who: Identity, named: Named) -> Identity {
    if let Some(container) = &mut who.container {
        container.name = named.container;
    }
    let pod = who.pod.get_or_insert_default();
    pod.workload = Some(workload::without_labels(&named.pod));
    (pod.name, pod.namespace) = (named.pod, named.namespace);
    who.source = Source::LogDirectory.into();
    who.unresolved = "image, labels and addresses are the container runtime's alone".to_owned();
    who
}

const OFF: &str = "no container runtime is asked (--cri none)";

fn ready(who: Identity) -> Resolution {
    Resolution::Ready(who)
}
