//! Connections that more than one process has: shared with a child, passed on, kept over an
//! exec; and connections that another process or thread accepts than the one that listens.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde_json::{Value, json};

use super::serve::{drain, read_exactly, send_exactly};
use super::start::say;

/// How a connection gets to the other process.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// A child has it beside its parent, as after fork.
    Shared,
    /// Sent over a unix socket (SCM_RIGHTS); the first process closes it.
    Passed,
    /// The process itself becomes another program.
    Exec,
}

/// Options of `hand`.
#[derive(clap::Args, Debug)]
pub struct Hand {
    /// Where to connect.
    #[arg(long)]
    pub to: SocketAddr,
    /// How the other one gets it.
    #[arg(long, value_enum)]
    pub how: How,
    /// Bytes that the first one sends.
    #[arg(long)]
    pub first: u64,
    /// Bytes that the other one sends then.
    #[arg(long)]
    pub then: u64,
    /// Name of the other one (`comm`).
    #[arg(long)]
    pub other: String,
}

/// Options of `push`: sends on the connection that is its standard input.
#[derive(clap::Args, Debug)]
pub struct Push {
    /// Bytes to send.
    #[arg(long)]
    pub send: u64,
    /// Standard input is a unix socket over which the connection comes.
    #[arg(long)]
    pub passed: bool,
}

/// Who accepts.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Another thread of the process that listens.
    Thread,
    /// A child that has the listening socket from its parent.
    Child,
}

/// Options of `accept`: listens, and lets somebody else accept and read.
#[derive(clap::Args, Debug)]
pub struct Accept {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long)]
    pub listen: SocketAddr,
    /// Who accepts.
    #[arg(long, value_enum)]
    pub by: By,
    /// Bytes to read.
    #[arg(long)]
    pub receive: u64,
}

/// Options of `take`: accepts on the socket that is its standard input.
#[derive(clap::Args, Debug)]
pub struct Take {
    /// Bytes to read.
    #[arg(long)]
    pub receive: u64,
}

fn itself(comm: &str, words: &[&str]) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("/proc/self/exe")?);
    command.args(["--comm", comm]).args(words);
    Ok(command)
}

/// Connects, sends, and has the other one send.
pub fn hand(options: &Hand) -> Result<()> {
    let mut stream =
        TcpStream::connect(options.to).with_context(|| format!("connecting to {}", options.to))?;
    let local = stream.local_addr()?;
    send_exactly(&mut stream, options.first)?;
    let bytes = options.then.to_string();
    let words = ["push", "--send", &bytes];
    let pid = std::process::id();
    let told = |other: u32| json!({ "opener": pid, "other": other, "local": local });
    match options.how {
        How::Shared => {
            let theirs = OwnedFd::from(stream.try_clone()?);
            let mut command = itself(&options.other, &words)?;
            let mut child = command.stdin(Stdio::from(theirs)).spawn()?;
            ensure!(child.wait()?.success(), "the child failed");
            say(&told(child.id()))?;
            say(&json!({ "done": true }))
        }
        How::Passed => {
            let (ours, theirs) = UnixStream::pair()?;
            let mut command = itself(&options.other, &[&words[..], &["--passed"]].concat())?;
            let mut child = command.stdin(Stdio::from(OwnedFd::from(theirs))).spawn()?;
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let fds = [stream.as_fd()];
            ensure!(
                control.push(SendAncillaryMessage::ScmRights(&fds)),
                "no room for a file descriptor"
            );
            let data = [IoSlice::new(b"x")];
            rustix::net::sendmsg(&ours, &data, &mut control, SendFlags::empty())?;
            drop(stream);
            ensure!(child.wait()?.success(), "the other process failed");
            say(&told(child.id()))?;
            say(&json!({ "done": true }))
        }
        How::Exec => {
            say(&told(pid))?;
            let error = itself(&options.other, &words)?
                .stdin(Stdio::from(OwnedFd::from(stream)))
                .exec();
            Err(error).context("exec")
        }
    }
}

/// Sends, and ends.
pub fn push(options: &Push) -> Result<()> {
    let own = std::io::stdin().as_fd().try_clone_to_owned()?;
    let connection = if options.passed { passed(&own)? } else { own };
    let mut stream = TcpStream::from(connection);
    send_exactly(&mut stream, options.send).map(drop)
}

fn passed(channel: &OwnedFd) -> Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0_u8];
    let mut data = [std::io::IoSliceMut::new(&mut byte)];
    rustix::net::recvmsg(channel, &mut data, &mut control, RecvFlags::empty())?;
    control
        .drain()
        .find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        })
        .context("no file descriptor came")
}

/// Listens, and prints who accepted.
pub fn accept(options: &Accept) -> Result<()> {
    let listener = TcpListener::bind(options.listen)
        .with_context(|| format!("listening on {}", options.listen))?;
    let pid = std::process::id();
    say(&json!({ "listening": listener.local_addr()?, "pid": pid }))?;
    match options.by {
        By::Thread => {
            let bytes = options.receive;
            let thread = std::thread::spawn(move || one(&listener, bytes));
            let row = thread.join().map_err(|_| anyhow::anyhow!("a panic"))?;
            say(&row?)
        }
        By::Child => {
            let bytes = options.receive.to_string();
            let status = itself("accepter", &["take", "--receive", &bytes])?
                .stdin(Stdio::from(OwnedFd::from(listener)))
                .status()?;
            ensure!(status.success(), "the child failed");
            Ok(())
        }
    }
}

/// Accepts on its standard input.
pub fn take(options: &Take) -> Result<()> {
    let listener = TcpListener::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    say(&one(&listener, options.receive)?)
}

fn one(listener: &TcpListener, bytes: u64) -> Result<Value> {
    let (mut stream, remote) = listener.accept().context("accept")?;
    read_exactly(&mut stream, bytes)?;
    drain(&mut stream)?;
    Ok(json!({
        "accepter": std::process::id(), "tid": rustix::thread::gettid().as_raw_pid(),
        "remote": remote,
    }))
}
