//! All entries of a Redis, at one version: no writer of this process has its turn meanwhile, and no
//! other process has control.

use std::collections::HashSet;

use ::redis::pipe;

use super::Redis;
use crate::store::{
    contents::Sink,
    tables::{Entry, Fault, Table},
};

/// Entries that one call reads, more or less: each may have as many bytes as code may.
const PAGE: usize = 50;

impl Redis {
    pub(super) async fn send_all(&self, mut into: Sink) -> Result<(), Fault> {
        let _turn = self.turn().await?;
        self.expect_control()?;
        let version = self.server.current().await?;
        for table in Table::ALL {
            self.send(table, &mut into).await?;
        }
        if self.server.current().await? != version {
            return Err(Fault::Broken("it was changed by somebody else meanwhile".to_owned()));
        }
        into.flush().await
    }

    async fn send(&self, table: Table, into: &mut Sink) -> Result<(), Fault> {
        let hash = self.server.keys.table(table);
        // A scan may come upon the same entry twice.
        let mut seen = HashSet::new();
        let mut cursor = 0;
        loop {
            let mut commands = pipe();
            commands.cmd("HSCAN").arg(&hash).arg(cursor).arg("COUNT").arg(PAGE);
            let ((next, page),): ((u64, Vec<Entry>),) = self.server.ask(&commands).await?;
            for (key, value) in page {
                if seen.insert(key.clone()) {
                    into.put(table, key, value).await?;
                }
            }
            if next == 0 {
                break;
            }
            cursor = next;
        }
        // A scan that was begun at another server, before a failover, may have missed some.
        let mut commands = pipe();
        commands.cmd("HLEN").arg(&hash);
        let (count,): (usize,) = self.server.ask(&commands).await?;
        match count == seen.len() {
            true => Ok(()),
            false => Err(Fault::Broken("not all of it could be read; try again".to_owned())),
        }
    }

    pub(super) async fn count_all(&self) -> Result<u64, Fault> {
        self.server.current().await?;
        let mut commands = pipe();
        for table in Table::ALL {
            commands.cmd("HLEN").arg(self.server.keys.table(table));
        }
        let counts: Vec<u64> = self.server.ask(&commands).await?;
        Ok(counts.iter().sum())
    }
}
