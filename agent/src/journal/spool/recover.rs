//! Opening a spool: whatever is in the directory, the records that are whole
//! are found, and everything else is named.

use std::path::Path;
use std::time::{Duration, Instant};

use culprit_proto::limits::LANES;
use culprit_proto::text::{clip, escape};

use super::error::SpoolError;
use super::fs::Fs;
use super::meta::{self, Found, Meta, unhex};
use super::quarantine::Moved;
use super::{
    Core, Former, LOCK, META, META_START, Options, Recovered, RecoveredLane, Spool, next_epoch,
};

mod files;
mod rebuild;

use files::Recovery;

/// What else lives in the state directory, or does no harm there. `flight` is
/// only the beginning of a name.
const HARMLESS: [&str; 9] = [
    META,
    META_START,
    "META.new",
    LOCK,
    super::QUARANTINE,
    "agent.sock",
    "agent.sock.new",
    "lost+found",
    "flight",
];

/// The name of a lane's directory.
pub(super) fn lane_dir(lane: usize) -> String {
    format!("lane{lane}")
}

pub(super) fn open<F: Fs>(
    fs: F,
    dir: &Path,
    node: &str,
    options: Options,
    patience: Duration,
) -> Result<(Spool<F>, Recovered), SpoolError> {
    fs.make_dir(dir).map_err(SpoolError::io("make", dir))?;
    refuse_foreign(&fs, dir)?;
    let lock = lock(&fs, dir, patience)?;
    let path = dir.join(META);
    let found = meta::read(&fs, dir).map_err(SpoolError::io("read", &path))?;
    let mut recovery = Recovery {
        fs: &fs,
        dir,
        moved: Moved::default(),
        troubles: Vec::new(),
        untold: 0,
    };
    if let Found::Unreadable(why) = &found {
        let why = format!("unreadable: {}", clip(why));
        recovery.quarantine(&path, "", &why);
    }
    let mut headers = [const { Vec::new() }; LANES];
    let mut lost = [(0, 0); LANES];
    let max_file = options.segment_bytes.saturating_mul(2).max(64 << 20);
    let max_file = usize::try_from(max_file).unwrap_or(usize::MAX);
    for (lane, headers) in headers.iter_mut().enumerate() {
        (*headers, lost[lane]) = recovery.headers(lane, max_file)?;
    }
    let had = match found {
        Found::Ours(ref meta) => Some((**meta).clone()),
        _ => None,
    };
    let start = match meta::read_as(META_START, &fs, dir) {
        Ok(Found::Ours(meta)) if had.is_none() => Some(*meta),
        _ => None,
    };
    let former = found.former().or_else(|| {
        let epochs = headers.iter().flatten().map(|header| header.epoch);
        let epoch = epochs.chain(start.as_ref().map(|meta| meta.epoch)).max();
        epoch.map(|epoch| Former {
            epoch,
            clean: false,
        })
    });
    let now = fs.now();
    let epoch = next_epoch(former.map(|former| former.epoch), now.wall);
    let newest = headers
        .iter()
        .flatten()
        .max_by_key(|header| (header.epoch, header.created_wall));
    let old_id = had
        .as_ref()
        .or(start.as_ref())
        .and_then(|meta| unhex(&meta.spool_id))
        .or(newest.map(|header| header.spool_id));
    let spool_id = match old_id {
        Some(id) => id,
        None => fs
            .random()
            .map_err(SpoolError::io("draw a spool id for", dir))?,
    };
    if old_id.is_some() && had.is_none() {
        recovery.trouble(
            "META is lost: numbers go on far above, what was acknowledged and counted is not known"
                .into(),
        );
    }
    let mut meta = Meta::new(spool_id, epoch, node);
    if let Some(had) = &had {
        meta.account = had.account.clone();
        meta.unclean_stops = had.unclean_stops;
        if had.node != node {
            recovery.trouble(format!(
                "the spool was written by node {}; what it holds is sent as node {}",
                clip(&had.node),
                clip(node)
            ));
        }
    }
    let goes_on = old_id.is_some();
    let clean = had.as_ref().is_some_and(|meta| meta.clean);
    meta.unclean_stops += u64::from(goes_on && !clean);
    let boot_id = fs.boot_id();
    let mut logs = Vec::new();
    let mut done = Vec::new();
    for (lane, headers) in headers.into_iter().enumerate() {
        let known = had.as_ref().map(|meta| &meta.lanes[lane]);
        let mut rebuild = rebuild::Rebuild {
            lane,
            known: known.cloned(),
            start: start.as_ref().map(|meta| meta.lanes[lane].clone()),
            headers,
            spool_id,
            boot_id,
            now,
            jump: goes_on && !clean,
            max_file,
            lost: lost[lane],
            done: Vec::new(),
        };
        logs.push(rebuild.run(&mut recovery, options.lanes[lane])?);
        done.append(&mut rebuild.done);
    }
    let Ok(mut lanes) = <[_; LANES]>::try_from(logs) else {
        unreachable!("one log for each lane")
    };
    let Recovery {
        moved,
        mut troubles,
        untold,
        ..
    } = recovery;
    let mut core = Core {
        fs,
        dir: dir.to_owned(),
        meta,
        spool_id,
        boot_id,
        segment_bytes: options.segment_bytes,
        _lock: lock,
    };
    for (at, log) in lanes.iter_mut().enumerate() {
        log.describe(&mut core.meta.lanes[at]);
    }
    core.meta.write_as(META_START, &core.fs, dir)?;
    // From here on no number below the new ones can be given again.
    core.write_meta(&mut lanes, false)?;
    for path in done {
        if let Err(error) = core.fs.remove(&path) {
            // The next start finds it again.
            let path = path.to_string_lossy();
            troubles.push(format!("{} stays: {error}", clip(&path)));
        }
    }
    for log in &mut lanes {
        if let Err(error) = log.fit(&mut core) {
            troubles.push(escape(&error.to_string()).into_owned());
        }
    }
    if untold > 0 {
        troubles.push(format!("and {untold} troubles more"));
    }
    let recovered = Recovered {
        spool_id,
        epoch,
        former,
        unclean_stops: core.meta.unclean_stops,
        lanes: std::array::from_fn(|lane| {
            let log = &lanes[lane];
            RecoveredLane {
                acked: log.acked,
                next: log.next,
                unassigned: log.unassigned,
                unassigned_acked: log.unassigned_acked(),
                pieces: log.pieces(),
            }
        }),
        account: core.meta.account.clone(),
        quarantined: moved.files,
        quarantine_deleted: moved.deleted,
        troubles,
    };
    Ok((Spool { core, lanes }, recovered))
}

/// Looks before anything is written.
pub(super) fn refuse_foreign<F: Fs>(fs: &F, dir: &Path) -> Result<(), SpoolError> {
    let foreign = |what| SpoolError::Foreign {
        dir: dir.to_owned(),
        what,
    };
    let path = dir.join(META);
    let found = meta::read(fs, dir).map_err(SpoolError::io("read", &path))?;
    match found {
        Found::Newer(found) => {
            return Err(SpoolError::Newer {
                path,
                found,
                known: Found::FORMAT,
            });
        }
        Found::Foreign => return Err(foreign("a META that is no spool's".into())),
        Found::Ours(_) | Found::Older(_) => return Ok(()),
        Found::Missing | Found::Unreadable(_) => {}
    }
    let mut other = None;
    for entry in fs.list(dir).map_err(SpoolError::io("list", dir))? {
        let name = entry.name.to_string_lossy();
        if (0..LANES).any(|lane| name == lane_dir(lane)) {
            return Ok(());
        }
        if !HARMLESS.contains(&&*name) && !name.starts_with("flight") {
            other = Some(clip(&name).into_owned());
        }
    }
    other.map_or(Ok(()), |name| Err(foreign(name)))
}

fn lock<F: Fs>(fs: &F, dir: &Path, patience: Duration) -> Result<F::Lock, SpoolError> {
    let path = dir.join(LOCK);
    let until = Instant::now() + patience;
    loop {
        match fs.lock(&path).map_err(SpoolError::io("lock", &path))? {
            Some(lock) => return Ok(lock),
            None if Instant::now() < until => fs.pause(),
            None => return Err(SpoolError::Locked(dir.to_owned())),
        }
    }
}
