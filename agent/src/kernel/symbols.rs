//! Names of kernel addresses, from /proc/kallsyms.
//!
//! The file is opened while the agent is privileged: who may see addresses is
//! decided when it is opened (kallsyms_show_value, 4.15). It is read at the
//! first stall, and kept: some 5 MB.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom},
};

/// Most bytes that are read; a kernel with its modules has 5 to 15 MB.
const MAX_BYTES: u64 = 64 << 20;
/// An address further behind a symbol is not in its function.
const MAX_FUNCTION: u64 = 1 << 20;

/// The functions of the running kernel.
#[derive(Debug)]
pub struct Symbols {
    file: Result<File, String>,
    table: Option<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// Address, and where its name begins in `names`; by address.
    rows: Vec<(u64, u32)>,
    /// Each ended by a line feed.
    names: String,
}

impl Default for Symbols {
    fn default() -> Self {
        Self {
            file: Err("not opened".to_owned()),
            table: None,
        }
    }
}

impl Symbols {
    /// Opens the file; does not read it.
    pub(super) fn open() -> Self {
        Self {
            file: File::open("/proc/kallsyms").map_err(|e| e.to_string()),
            table: None,
        }
    }

    /// Names of these addresses; an address without one as hexadecimal.
    ///
    /// # Errors
    /// Why there are no names: the file cannot be read, or shows no addresses
    /// (kernel.kptr_restrict).
    pub fn names(&mut self, addresses: &[u64]) -> Result<Vec<String>, String> {
        if addresses.is_empty() {
            return Ok(Vec::new());
        }
        if self.table.is_none() {
            let file = self.file.as_mut().map_err(|reason| reason.clone())?;
            let table = read(file).map_err(|e| e.to_string())?;
            self.table = Some(table);
        }
        let table = self.table.as_ref().filter(|table| !table.rows.is_empty());
        let table = table.ok_or("it shows no addresses (kernel.kptr_restrict)")?;
        Ok(addresses.iter().map(|at| table.name(*at)).collect())
    }
}

fn read(file: &mut File) -> std::io::Result<Table> {
    file.seek(SeekFrom::Start(0))?;
    let mut reader = BufReader::with_capacity(64 << 10, file.take(MAX_BYTES));
    let mut line = Vec::new();
    let mut table = Table::default();
    while {
        line.clear();
        reader.read_until(b'\n', &mut line)? > 0
    } {
        table.add(&String::from_utf8_lossy(&line));
    }
    table.rows.sort_unstable();
    table.rows.shrink_to_fit();
    Ok(table)
}

impl Table {
    /// A line: `ffffffff81000000 T _stext [module]`.
    fn add(&mut self, line: &str) {
        let mut words = line.split_ascii_whitespace();
        let (Some(address), Some(kind), Some(name)) = (words.next(), words.next(), words.next())
        else {
            return;
        };
        let code = matches!(kind, "t" | "T" | "w" | "W");
        let (Ok(address), true) = (u64::from_str_radix(address, 16), code) else {
            return;
        };
        let Ok(at) = u32::try_from(self.names.len()) else {
            return;
        };
        if address != 0 {
            self.rows.push((address, at));
            self.names.push_str(name);
            self.names.push('\n');
        }
    }

    fn name(&self, address: u64) -> String {
        let next = self.rows.partition_point(|(at, _)| *at <= address);
        let row = next.checked_sub(1).and_then(|row| self.rows.get(row));
        row.filter(|(at, _)| address - at < MAX_FUNCTION)
            .and_then(|(_, at)| self.names.get(*at as usize..)?.lines().next())
            .map_or_else(|| format!("{address:#x}"), str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_of_the_function_before_it() {
        let mut table = Table::default();
        for line in [
            "ffffffff81000000 T first\n",
            "ffffffff81000100 t second [module]\n",
            "ffffffff81000180 D no_code\n",
            "0000000000000000 T hidden\n",
            "nonsense\n",
        ] {
            table.add(line);
        }
        assert_eq!(table.name(0xffff_ffff_8100_0000), "first");
        assert_eq!(table.name(0xffff_ffff_8100_00ff), "first");
        assert_eq!(table.name(0xffff_ffff_8100_0190), "second");
        assert_eq!(table.name(0xffff_ffff_8200_0000), "0xffffffff82000000");
        assert_eq!(table.name(5), "0x5");
    }

    #[test]
    fn without_the_file_the_reason_is_said() {
        let error = Symbols::default().names(&[1]);
        assert_eq!(error, Err("not opened".to_owned()));
    }
}
