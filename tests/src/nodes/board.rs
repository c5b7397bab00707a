//! What the nodes of a test tell each other: a table that the first one keeps, over
//! TCP, where reading waits until the value is there.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

/// How long a node waits for another one: it may make many pods meanwhile, in an
/// emulated machine.
const PATIENCE: Duration = Duration::from_secs(300);

#[derive(Default)]
struct Table {
    values: Mutex<BTreeMap<String, Value>>,
    changed: Condvar,
}

/// Access to the table.
pub struct Board {
    at: SocketAddr,
}

impl Board {
    /// Keeps the table here; its threads end with the process.
    pub fn serve(at: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(at).with_context(|| format!("listening on {at}"))?;
        let at = listener.local_addr()?;
        let table = Arc::new(Table::default());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let table = Arc::clone(&table);
                std::thread::spawn(move || {
                    if let Err(error) = answer(stream, &table) {
                        eprintln!("the board: {error:#}");
                    }
                });
            }
        });
        Ok(Self { at })
    }

    /// The table that another node keeps, as soon as it does.
    pub fn connect(at: SocketAddr) -> Result<Self> {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect_timeout(&at, Duration::from_secs(2)).is_err() {
            ensure!(Instant::now() < deadline, "nobody listens on {at}");
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(Self { at })
    }

    /// Tells the others.
    pub fn put(&self, key: &str, value: &Value) -> Result<()> {
        self.ask(&json!({ "put": key, "value": value })).map(drop)
    }

    /// What was told, now or later.
    pub fn get(&self, key: &str) -> Result<Value> {
        let value = self.ask(&json!({ "get": key }))?;
        ensure!(!value.is_null(), "no node told {key}");
        Ok(value)
    }

    fn ask(&self, question: &Value) -> Result<Value> {
        let mut stream =
            TcpStream::connect(self.at).with_context(|| format!("the board at {}", self.at))?;
        writeln!(stream, "{question}")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("the board said {line:?}"))
    }
}

fn answer(stream: TcpStream, table: &Table) -> Result<()> {
    let mut line = String::new();
    BufReader::new(stream.try_clone()?).read_line(&mut line)?;
    if line.is_empty() {
        // Only a look whether somebody listens.
        return Ok(());
    }
    let question: Value = serde_json::from_str(&line)?;
    let key = |name: &str| question.get(name).and_then(Value::as_str);
    let mut values = table.values.lock().unwrap_or_else(PoisonError::into_inner);
    let value = if let Some(key) = key("put") {
        let value = question.get("value").cloned().unwrap_or_default();
        values.insert(key.to_owned(), value);
        table.changed.notify_all();
        Value::Bool(true)
    } else if let Some(key) = key("get") {
        let (values, _) = table
            .changed
            .wait_timeout_while(values, PATIENCE, |values| !values.contains_key(key))
            .unwrap_or_else(PoisonError::into_inner);
        values.get(key).cloned().unwrap_or_default()
    } else {
        bail!("no question: {question}")
    };
    writeln!(&stream, "{value}").context("answering")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn reading_waits_for_what_is_told_later() {
        let board = Board::serve("127.0.0.1:0".parse().unwrap()).unwrap();
        let other = Board::connect(board.at).unwrap();
        let teller = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            other.put("b", &json!({ "ip": "10.0.0.1" })).unwrap();
        });
        assert_eq!(board.get("b").unwrap(), json!({ "ip": "10.0.0.1" }));
        teller.join().unwrap();
    }
}
