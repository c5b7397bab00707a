//! Cgroup paths as they are found on real nodes.

use culprit_proto::v1::pod::QosClass::{self, BestEffort, Burstable, Guaranteed, Unknown};
use proptest::prelude::*;

use crate::identity::CgroupClass::{self, Container, Kubepods, Other, Pod, Root};
use crate::identity::{CgroupPath, fuzz};

const ID: &str = "0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f9";
const OTHER_ID: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";
const UID: &str = "6b1ed4f3-27b5-4d1c-9f3e-0123456789ab";
const UID_: &str = "6b1ed4f3_27b5_4d1c_9f3e_0123456789ab";
const STATIC: &str = "5f3a9c0e4b7d28160f9e8d7c6b5a4938";

/// Class, pod uid, QoS class, container id and runtime as one line.
fn said(path: &str) -> String {
    let p = CgroupPath::parse(path);
    let container = p
        .container
        .as_ref()
        .map_or("-".to_owned(), |c| format!("{}@{}", c.id, c.runtime));
    format!(
        "{:?} {} {:?} {container}",
        p.class(),
        p.pod_uid.as_deref().unwrap_or("-"),
        p.qos
    )
}

fn expect(path: &str, class: CgroupClass, uid: &str, qos: QosClass, container: &str) {
    assert_eq!(
        said(path),
        format!("{class:?} {uid} {qos:?} {container}"),
        "{path}"
    );
}

#[test]
fn real_paths_are_understood() {
    let containerd = format!("{ID}@containerd");
    let crio = format!("{ID}@cri-o");
    let docker = format!("{ID}@docker");
    let bare = format!("{ID}@");
    let slice =
        format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice");
    let guaranteed = format!("/kubepods.slice/kubepods-pod{UID_}.slice");
    let table = [
        // systemd driver
        (
            format!("{slice}/cri-containerd-{ID}.scope"),
            Container,
            UID,
            Burstable,
            &*containerd,
        ),
        (
            format!("{slice}/crio-{ID}.scope"),
            Container,
            UID,
            Burstable,
            &crio,
        ),
        (
            format!("{slice}/crio-{ID}.scope/container"),
            Container,
            UID,
            Burstable,
            &crio,
        ),
        (
            format!("{slice}/docker-{ID}.scope"),
            Container,
            UID,
            Burstable,
            &docker,
        ),
        (
            format!("{guaranteed}/cri-containerd-{ID}.scope"),
            Container,
            UID,
            Guaranteed,
            &containerd,
        ),
        (
            format!(
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{STATIC}.slice/crio-{ID}.scope"
            ),
            Container,
            STATIC,
            BestEffort,
            &crio,
        ),
        (slice.clone(), Pod, UID, Burstable, "-"),
        (guaranteed, Pod, UID, Guaranteed, "-"),
        // the monitor is no container
        (
            format!("{slice}/crio-conmon-{ID}.scope"),
            Pod,
            UID,
            Burstable,
            "-",
        ),
        (
            format!("/machine.slice/libpod-conmon-{ID}.scope"),
            Other,
            "-",
            Unknown,
            "-",
        ),
        // cgroupfs driver
        (
            format!("/kubepods/burstable/pod{UID}/{ID}"),
            Container,
            UID,
            Burstable,
            &bare,
        ),
        (
            format!("/kubepods/besteffort/pod{UID}/{ID}"),
            Container,
            UID,
            BestEffort,
            &bare,
        ),
        (
            format!("/kubepods/pod{UID}/{ID}"),
            Container,
            UID,
            Guaranteed,
            &bare,
        ),
        (
            format!("/kubepods/pod{STATIC}/{ID}"),
            Container,
            STATIC,
            Guaranteed,
            &bare,
        ),
        (
            format!("/kubepods/burstable/pod{UID}/crio-{ID}"),
            Container,
            UID,
            Burstable,
            &crio,
        ),
        (
            format!("/kubepods/burstable/pod{UID}"),
            Pod,
            UID,
            Burstable,
            "-",
        ),
        // containerd without its systemd driver under a kubelet with it
        (
            format!(
                "/system.slice/containerd.service/kubepods-burstable-pod{UID_}.slice:cri-containerd:{ID}"
            ),
            Container,
            UID,
            Burstable,
            &containerd,
        ),
        // below a container: systemd, cgroup v2 leaf, docker in docker
        (
            format!("{slice}/cri-containerd-{ID}.scope/init.scope"),
            Container,
            UID,
            Burstable,
            &containerd,
        ),
        (
            format!("/kubepods/pod{UID}/{ID}/system.slice/cron.service"),
            Container,
            UID,
            Guaranteed,
            &bare,
        ),
        (
            format!("/kubepods/pod{UID}/{ID}/docker/{OTHER_ID}"),
            Container,
            UID,
            Guaranteed,
            &bare,
        ),
        // kind, kubelet --cgroup-root
        (
            format!(
                "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{UID_}.slice/cri-containerd-{ID}.scope"
            ),
            Container,
            UID,
            Guaranteed,
            &containerd,
        ),
        (
            format!("/kubelet/kubepods/burstable/pod{UID}/{ID}"),
            Container,
            UID,
            Burstable,
            &bare,
        ),
        // from inside another cgroup namespace
        (
            format!("/../../kubepods/burstable/pod{UID}/{ID}"),
            Container,
            UID,
            Burstable,
            &bare,
        ),
        // no Kubernetes
        (
            format!("/system.slice/docker-{ID}.scope"),
            Container,
            "-",
            Unknown,
            &docker,
        ),
        (format!("/docker/{ID}"), Container, "-", Unknown, &bare),
        (format!("/k8s.io/{ID}"), Container, "-", Unknown, &bare),
        (
            format!("/machine.slice/libpod-{ID}.scope/container"),
            Container,
            "-",
            Unknown,
            &format!("{ID}@podman"),
        ),
        // above the pods, and hosts
        ("/kubepods".to_owned(), Kubepods, "-", Unknown, "-"),
        ("/kubepods.slice".to_owned(), Kubepods, "-", Unknown, "-"),
        (
            "/kubepods.slice/kubepods-besteffort.slice".to_owned(),
            Kubepods,
            "-",
            BestEffort,
            "-",
        ),
        (
            "/kubepods/burstable".to_owned(),
            Kubepods,
            "-",
            Burstable,
            "-",
        ),
        ("/".to_owned(), Root, "-", Unknown, "-"),
        (
            "/system.slice/containerd.service".to_owned(),
            Other,
            "-",
            Unknown,
            "-",
        ),
        (
            "/user.slice/user-1000.slice/session-1.scope".to_owned(),
            Other,
            "-",
            Unknown,
            "-",
        ),
        // nearly
        (format!("/burstable/pod{UID}"), Other, "-", Unknown, "-"),
        ("/mykubepods.slice".to_owned(), Other, "-", Unknown, "-"),
        (
            format!("/docker/{}", ID.to_uppercase()),
            Other,
            "-",
            Unknown,
            "-",
        ),
        (format!("/docker/{}", &ID[1..]), Other, "-", Unknown, "-"),
        ("/kubepods/pod../x".to_owned(), Kubepods, "-", Unknown, "-"),
    ];
    for (path, class, uid, qos, container) in table {
        expect(&path, class, uid, qos, container);
    }
}

#[test]
fn a_container_cannot_pose_as_another() {
    let spoof = format!("/kubepods/burstable/pod{UID}/{ID}/kubepods/pod{STATIC}/{OTHER_ID}");
    expect(&spoof, Container, UID, Burstable, &format!("{ID}@"));
    let spoof = format!(
        "/docker/{ID}/kubepods.slice/kubepods-pod{UID_}.slice/cri-containerd-{OTHER_ID}.scope"
    );
    expect(&spoof, Container, "-", Unknown, &format!("{ID}@"));
}

proptest! {
    #[test]
    fn any_bytes_are_parsed_to_bounded_parts(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let parsed = fuzz::cgroup_path(&bytes);
        prop_assert!(parsed.pod_uid.is_none_or(|u| (1..=64).contains(&u.len())));
        prop_assert!(parsed.container.is_none_or(|c| c.id.len() == 64));
    }

    #[test]
    fn parts_of_paths_in_any_order_do_not_panic_and_pods_need_kubepods(
        parts in proptest::collection::vec(
            prop_oneof![
                Just("kubepods".to_owned()), Just("kubepods.slice".to_owned()), Just("burstable".to_owned()),
                Just(format!("pod{UID}")), Just(format!("kubepods-burstable-pod{UID_}.slice")), Just(ID.to_owned()),
                Just(format!("crio-{ID}.scope")), Just(format!("x:y:{ID}")), Just(String::new()), "[a-z.:_-]{0,12}",
            ],
            0..10,
        )
    ) {
        let path = format!("/{}", parts.join("/"));
        let parsed = CgroupPath::parse(&path);
        if parsed.pod_uid.is_some() {
            prop_assert!(parsed.kubepods && parsed.qos != Unknown);
        }
        // What is inside of a container is the container's.
        if parsed.container.is_some() {
            let below = CgroupPath::parse(&format!("{path}/kubepods/podx/{OTHER_ID}"));
            prop_assert_eq!(below, parsed);
        }
    }
}
