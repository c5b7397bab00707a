//! Names without the container runtime: kubelet's links in /var/log/containers name
//! pod, namespace and container of each container id. A mode of least privilege (no
//! access to the runtime's socket), and what is left while the runtime is down.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::limits::{MAX_ID, MAX_NAME};
use super::lock;

/// Links that are read.
const MAX: usize = 8192;
/// Between two looks at the directory.
const LOOK: Duration = Duration::from_secs(1);

/// What a link says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) pod: String,
    pub(super) namespace: String,
    pub(super) container: String,
}

/// The links, as of the last look.
#[derive(Debug, Default)]
struct Links {
    names: HashMap<String, Named>,
    looked: Option<Instant>,
}

/// Names of containers by id.
#[derive(Debug)]
pub(super) struct LogNames {
    directory: PathBuf,
    links: Mutex<Links>,
}

impl LogNames {
    pub(super) fn new(log_root: &Path) -> Self {
        Self {
            directory: log_root.join("containers"),
            links: Mutex::default(),
        }
    }

    /// The container's names; looks at the directory when it is not known and that
    /// was not done within a second.
    pub(super) fn find(&self, id: &str) -> Option<Named> {
        let mut links = lock(&self.links);
        if let Some(named) = links.names.get(id) {
            return Some(named.clone());
        }
        let now = Instant::now();
        if links.looked.is_some_and(|at| at + LOOK > now) {
            return None;
        }
        links.looked = Some(now);
        links.names = read(&self.directory);
        links.names.get(id).cloned()
    }
}

fn read(directory: &Path) -> HashMap<String, Named> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .take(MAX)
        .filter_map(|entry| parse(entry.file_name().to_str()?))
        .collect()
}

/// `POD_NAMESPACE_CONTAINER-ID.log`: none of the names has an underscore.
fn parse(file: &str) -> Option<(String, Named)> {
    let (names, id) = file.strip_suffix(".log")?.rsplit_once('-')?;
    let mut parts = names.split('_');
    let (pod, namespace, container) = (parts.next()?, parts.next()?, parts.next()?);
    let name = |text: &str| (1..=MAX_NAME).contains(&text.len());
    let good = parts.next().is_none()
        && [pod, namespace, container].into_iter().all(name)
        && (1..=MAX_ID).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    good.then(|| {
        let named = Named {
            pod: pod.to_owned(),
            namespace: namespace.to_owned(),
            container: container.to_owned(),
        };
        (id.to_owned(), named)
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_link_names_pod_namespace_and_container() {
        let id = "0123456789abcdef".repeat(4);
        let (found, named) = parse(&format!("cart-0_shop_app-side-{id}.log")).unwrap();
        assert_eq!(found, id);
        assert_eq!(
            (&*named.pod, &*named.namespace, &*named.container),
            ("cart-0", "shop", "app-side")
        );
        for odd in [
            "",
            "cart-0_shop_app.log",
            "cart-0_shop-0123.log",
            "a_b_c_d-0123.log",
            "_shop_app-0123.log",
            "cart-0_shop_app-xyz.log",
            "cart-0_shop_app-0123.txt",
        ] {
            assert_eq!(parse(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_new_container_is_found_at_the_next_look() {
        let dir = tempfile::tempdir().unwrap();
        let names = LogNames::new(dir.path());
        assert_eq!(names.find("abc1"), None);
        let containers = dir.path().join("containers");
        std::fs::create_dir(&containers).unwrap();
        // Links whose target is gone are as good.
        std::os::unix::fs::symlink("/nowhere", containers.join("p_n_c-abc1.log")).unwrap();
        assert_eq!(names.find("abc1"), None, "within the second");
        lock(&names.links).looked = None;
        assert_eq!(names.find("abc1").unwrap().container, "c");
    }
}
