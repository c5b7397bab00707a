//! What a cgroup's path says: pod uid, QoS class, container id and runtime.
//!
//! Pure functions over hostile text. The outermost container wins: a container
//! that may write to its own cgroup (systemd inside, a privileged pod) can
//! make directories named like another pod's below it, and they stay its own.

use culprit_proto::v1::pod::QosClass;

use super::CgroupClass;

/// Longest pod uid taken from a path, bytes (a UUID has 36).
const MAX_UID: usize = 64;

/// A container as its cgroup's directory names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerRef {
    /// 64 lower-case hex digits.
    pub id: String,
    /// What the directory's prefix says of the runtime ("containerd", "cri-o",
    /// "docker", "podman", "kata"); empty for a bare id.
    pub runtime: &'static str,
}

/// A parsed cgroup path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupPath {
    /// The path goes through a `kubepods` directory.
    pub kubepods: bool,
    /// With dashes where the path has them or stands for them (systemd).
    pub pod_uid: Option<String>,
    /// `Unknown` above the pod and outside of Kubernetes.
    pub qos: QosClass,
    /// The container that the cgroup is, or is inside of.
    pub container: Option<ContainerRef>,
    root: bool,
}

impl CgroupPath {
    /// Parses a path below a hierarchy's root, as in `/proc/PID/cgroup`.
    /// Never fails: what is not recognised is nobody's.
    pub fn parse(path: &str) -> Self {
        let mut at = Self {
            kubepods: false,
            pod_uid: None,
            qos: QosClass::Unknown,
            container: None,
            root: true,
        };
        // `..` stands first when the reader's cgroup namespace is not the root.
        for part in path.split('/').filter(|p| !matches!(*p, "" | "." | "..")) {
            at.root = false;
            if at.enter(part) {
                break;
            }
        }
        at
    }

    /// What the cgroup stands for.
    pub fn class(&self) -> CgroupClass {
        if self.root {
            CgroupClass::Root
        } else if self.container.is_some() {
            CgroupClass::Container
        } else if self.pod_uid.is_some() {
            CgroupClass::Pod
        } else if self.kubepods {
            CgroupClass::Kubepods
        } else {
            CgroupClass::Other
        }
    }

    /// Takes one directory; true when nothing below it can change the answer.
    fn enter(&mut self, part: &str) -> bool {
        // containerd told of a systemd path but running without the systemd
        // driver makes one directory of it: "SLICE:PREFIX:ID".
        if let Some((slice, rest)) = part.split_once(':') {
            if let Some((prefix, id)) = rest.split_once(':')
                && is_container_id(id)
            {
                self.enter_slice(slice);
                self.set_container(prefix, id);
                return true;
            }
            return false;
        }
        if self.enter_slice(part) || self.enter_plain(part) {
            return false;
        }
        let (prefix, id) = split_scope(part);
        if !is_container_id(id) {
            return false;
        }
        // conmon, CRI-O's and podman's monitor, serves one container from
        // outside of it.
        if prefix.ends_with("conmon") {
            return true;
        }
        self.set_container(prefix, id);
        true
    }

    /// systemd driver: `[ROOT-]kubepods[-QOS][-podUID].slice`, dashes of the
    /// uid written as underscores.
    fn enter_slice(&mut self, part: &str) -> bool {
        let Some(name) = part.strip_suffix(".slice") else {
            return false;
        };
        let rest = match name.split_once("kubepods") {
            Some(("", rest)) => rest,
            Some((root, rest)) if root.ends_with('-') => rest,
            _ => return false,
        };
        let (qos, rest) = match rest {
            _ if rest.starts_with("-burstable") => {
                (QosClass::Burstable, &rest["-burstable".len()..])
            }
            _ if rest.starts_with("-besteffort") => {
                (QosClass::BestEffort, &rest["-besteffort".len()..])
            }
            _ => (QosClass::Unknown, rest),
        };
        match rest.strip_prefix("-pod") {
            Some(uid) => self.enter_pod(&uid.replace('_', "-"), qos),
            None if rest.is_empty() => {
                self.kubepods = true;
                if self.pod_uid.is_none() {
                    self.qos = qos;
                }
                true
            }
            None => false,
        }
    }

    /// cgroupfs driver: `kubepods[/QOS]/podUID`.
    fn enter_plain(&mut self, part: &str) -> bool {
        match part {
            "kubepods" => {
                self.kubepods = true;
                true
            }
            "burstable" | "besteffort" if self.kubepods && self.pod_uid.is_none() => {
                self.qos = if part == "burstable" {
                    QosClass::Burstable
                } else {
                    QosClass::BestEffort
                };
                true
            }
            _ if self.kubepods && self.pod_uid.is_none() => match part.strip_prefix("pod") {
                Some(uid) => self.enter_pod(uid, self.qos),
                None => false,
            },
            _ => false,
        }
    }

    fn enter_pod(&mut self, uid: &str, qos: QosClass) -> bool {
        let plausible = (1..=MAX_UID).contains(&uid.len())
            && uid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !plausible || self.pod_uid.is_some() {
            return false;
        }
        self.kubepods = true;
        self.pod_uid = Some(uid.to_owned());
        // Guaranteed pods stand directly below kubepods.
        self.qos = if qos == QosClass::Unknown {
            QosClass::Guaranteed
        } else {
            qos
        };
        true
    }

    fn set_container(&mut self, prefix: &str, id: &str) {
        let runtime = match prefix {
            "cri-containerd" | "containerd" | "nerdctl" => "containerd",
            "crio" => "cri-o",
            "docker" => "docker",
            "libpod" => "podman",
            "kata" => "kata",
            _ => "",
        };
        self.container = Some(ContainerRef {
            id: id.to_owned(),
            runtime,
        });
    }
}

/// `PREFIX-ID.scope`, `PREFIX-ID`, `PREFIX_ID` or a bare id.
fn split_scope(part: &str) -> (&str, &str) {
    let name = part.strip_suffix(".scope").unwrap_or(part);
    name.rsplit_once(['-', '_']).unwrap_or(("", name))
}

fn is_container_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}
