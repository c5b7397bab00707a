//! Loading and attaching one program at one place, and undoing it.

use aya::{
    Btf, Ebpf,
    programs::{
        BtfTracePoint, FEntry, FExit, KProbe, PerfEvent, Program, ProgramError, RawTracePoint,
        TracePoint,
        perf_event::{PerfEventConfig, PerfEventScope, SamplePolicy, SoftwareEvent},
    },
    util::online_cpus,
};

use super::plan::{Hook, Step};

/// Programs of the object, and which are attached where.
pub(super) struct Attacher {
    ebpf: Ebpf,
    /// Some 20 MiB: dropped when nothing more will be loaded.
    btf: Option<Btf>,
    attached: Vec<Step>,
    /// What was attached and let go of: known to work, not to be tried again.
    proven: Vec<Step>,
    /// Of the CPU clock, nanoseconds.
    period_ns: u64,
}

/// The same work at the same tracepoint in the two flavours of it. Of these one is
/// enough, and both would do it twice: probes that share it may have been given
/// different flavours.
fn twins(one: &Step, other: &Step) -> bool {
    let tracepoint = |step: &Step| match step.hook {
        Hook::TpBtf(name) => Some((step.program.strip_suffix("_tp_btf")?, name)),
        Hook::RawTp(name) => Some((step.program.strip_suffix("_raw_tp")?, name)),
        _ => None,
    };
    tracepoint(one).is_some_and(|it| tracepoint(other) == Some(it))
}

impl Attacher {
    /// Takes over a loaded object.
    pub(super) fn new(ebpf: Ebpf, btf: Btf, period_ns: u64) -> Self {
        Self {
            ebpf,
            btf: Some(btf),
            attached: Vec::new(),
            proven: Vec::new(),
            period_ns,
        }
    }

    /// The object's programs and the kernel's BTF as aya reads it, which is
    /// given up: nothing can be loaded after.
    pub(super) fn finish(&mut self) -> (&mut Ebpf, Option<Btf>) {
        (&mut self.ebpf, self.btf.take())
    }

    /// Every program that is attached, once.
    pub(super) fn programs(&self) -> impl Iterator<Item = (&'static str, &Program)> {
        let mut seen: Vec<&'static str> = Vec::new();
        self.attached.iter().filter_map(move |step| {
            if seen.contains(&step.program) {
                return None;
            }
            seen.push(step.program);
            Some((step.program, self.ebpf.program(step.program)?))
        })
    }

    fn has(&self, step: &Step) -> bool {
        let same = |s: &Step| s.program == step.program && s.hook == step.hook;
        self.attached.iter().any(|s| same(s) || twins(s, step)) || self.proven.iter().any(same)
    }

    /// Attaches all steps or, when one fails, none of them. Steps that are
    /// attached already (for another probe) count as done.
    ///
    /// # Errors
    /// The reason why the first failing step cannot be attached.
    pub(super) fn attach_all(&mut self, steps: &[Step]) -> Result<Vec<Step>, String> {
        let mut new = Vec::new();
        for step in steps {
            if self.has(step) {
                continue;
            }
            if let Err(error) = self.attach(step) {
                new.push(*step);
                self.detach(&new);
                return Err(format!("{}: {}", place(step.hook), reason(&error)));
            }
            self.attached.push(*step);
            new.push(*step);
        }
        Ok(new)
    }

    /// Detaches everything.
    pub(super) fn detach_all(&mut self) {
        // Last first: what adds to another program's records goes before it.
        let all: Vec<Step> = self.attached.iter().rev().copied().collect();
        self.detach(&all);
    }

    /// Detaches steps of which only that they work is of interest: they count as attached from
    /// then on. Most of `doctor`'s time is the verifier's, and flavours share programs.
    pub(super) fn let_go(&mut self, steps: &[Step]) {
        self.detach(steps);
        self.proven.extend_from_slice(steps);
    }

    /// Detaches steps and unloads programs that are then attached nowhere.
    pub(super) fn detach(&mut self, steps: &[Step]) {
        for step in steps {
            self.attached
                .retain(|s| !(s.program == step.program && s.hook == step.hook));
        }
        for step in steps {
            if self.attached.iter().any(|s| s.program == step.program) {
                continue;
            }
            if let Some(program) = self.ebpf.program_mut(step.program) {
                // Not loaded is what is wanted.
                let _ = match program {
                    Program::KProbe(p) => p.unload(),
                    Program::FEntry(p) => p.unload(),
                    Program::FExit(p) => p.unload(),
                    Program::BtfTracePoint(p) => p.unload(),
                    Program::RawTracePoint(p) => p.unload(),
                    Program::TracePoint(p) => p.unload(),
                    Program::PerfEvent(p) => p.unload(),
                    _ => Ok(()),
                };
            }
        }
    }

    fn attach(&mut self, step: &Step) -> Result<(), ProgramError> {
        let fresh = !self.attached.iter().any(|s| s.program == step.program);
        let (Some(program), Some(btf)) = (self.ebpf.program_mut(step.program), &self.btf) else {
            return Err(ProgramError::NotLoaded);
        };
        match step.hook {
            Hook::TpBtf(name) => {
                let program: &mut BtfTracePoint = program.try_into()?;
                program.load(name, btf)?;
                program.attach()?;
            }
            Hook::RawTp(name) => {
                let program: &mut RawTracePoint = program.try_into()?;
                program.load()?;
                program.attach(name)?;
            }
            Hook::Fentry(name) => {
                let program: &mut FEntry = program.try_into()?;
                program.load(name, btf)?;
                program.attach()?;
            }
            Hook::Fexit(name) => {
                let program: &mut FExit = program.try_into()?;
                program.load(name, btf)?;
                program.attach()?;
            }
            Hook::Kprobe(name) => {
                let program: &mut KProbe = program.try_into()?;
                if fresh {
                    program.load()?;
                }
                program.attach(name, 0)?;
            }
            Hook::Tracepoint(category, name) => {
                let program: &mut TracePoint = program.try_into()?;
                program.load()?;
                program.attach(category, name)?;
            }
            Hook::CpuClock => {
                let program: &mut PerfEvent = program.try_into()?;
                program.load()?;
                let cpus = online_cpus().map_err(|(_, error)| ProgramError::IOError(error))?;
                for cpu in cpus {
                    program.attach(
                        PerfEventConfig::Software(SoftwareEvent::CpuClock),
                        PerfEventScope::AllProcessesOneCpu { cpu },
                        SamplePolicy::Period(self.period_ns),
                        false,
                    )?;
                }
            }
        }
        Ok(())
    }
}

fn place(hook: Hook) -> String {
    match hook {
        Hook::TpBtf(n) => format!("tp_btf {n}"),
        Hook::RawTp(n) => format!("raw_tp {n}"),
        Hook::Fentry(n) => format!("fentry {n}"),
        Hook::Fexit(n) => format!("fexit {n}"),
        Hook::Kprobe(n) => format!("kprobe {n}"),
        Hook::Tracepoint(c, n) => format!("tracepoint {c}:{n}"),
        Hook::CpuClock => "perf_event cpu-clock".to_owned(),
    }
}

/// One line that says why: the error chain, and the verifier's last word.
pub(super) fn reason(error: &ProgramError) -> String {
    if let ProgramError::LoadError {
        io_error,
        verifier_log,
    } = error
    {
        let log = verifier_log.to_string();
        let last = log
            .lines()
            .map(str::trim)
            .rfind(|l| {
                !l.is_empty()
                    && ![
                        "processed ",
                        "verification time",
                        "stack depth",
                        "max_",
                        "peak_states",
                    ]
                    .iter()
                    .any(|p| l.starts_with(p))
            })
            .map(|l| format!(" ({l})"))
            .unwrap_or_default();
        return format!("load refused: {io_error}{last}");
    }
    chain(error)
}

/// An error and its causes in one line, each said once.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let next = cause.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        source = cause.source();
    }
    text
}
