//! What has to be true in the end, whatever happened before.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Result, ensure};

use super::account::Account;
use super::node::NAME;
use super::promise::Promises;
use super::store::{self, Stored, Watch, by_lane, connects};
use crate::scenario::tools::Tools;

/// Everything promised is in the store of one node with one spool, and says
/// the same; each of these connects is there once, and no connect twice; the
/// identity holds at rest and its `committed` is what lies there.
pub fn once(
    tools: &Tools,
    store: &Path,
    promises: &Promises,
    made: &[Ipv4Addr],
) -> Result<Account> {
    let records = store::records(store, None)?;
    promises.kept(&records)?;
    each_once(&records, made)?;
    rest(tools, store, &records)
}

/// Each of these connects is in the records once, and no connect twice.
pub fn each_once(records: &[Stored], made: &[Ipv4Addr]) -> Result<()> {
    let found = connects(records);
    for ip in made {
        let times = found.get(ip).copied().unwrap_or_default();
        ensure!(
            times == 1,
            "the connect to {ip} is in the store {times} times"
        );
    }
    // Others than those of `Traffic` may connect to one address twice.
    let twice = found
        .iter()
        .find(|(ip, times)| ip.octets()[0] == 127 && ip.octets()[1] > 0 && **times > 1);
    ensure!(twice.is_none(), "a connect is there twice: {twice:?}");
    Ok(())
}

/// No record and no content twice, the identity at rest, and `committed` is
/// what lies in the store.
pub fn rest(tools: &Tools, store: &Path, records: &[Stored]) -> Result<Account> {
    Watch::new(store).look_at_all()?;
    let account = Account::at_collector(tools, store, NAME)?;
    account.at_rest()?;
    account.is_stored(&by_lane(records))?;
    Ok(account)
}
