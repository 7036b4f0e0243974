//! The lines of a backup, written and read with the digest over all of them. Pure.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    error::{Error, Result},
    name::InstanceId,
    store::{Record, SCHEMA},
};

/// The version of the file's form.
pub(super) const VERSION: u32 = 1;

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) grid_backup: u32,
    /// That of the entries.
    pub(super) schema: u32,
    /// Whose containers are those of these services.
    pub(super) instance: InstanceId,
    pub(super) made_at: Timestamp,
    /// A digest under the newest of the keys that environment variables are sealed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) keys: Option<String>,
}

/// A file of the data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) file: String,
    pub(super) text: String,
}

/// The last line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Trailer {
    entries: u64,
    /// Over all lines before this one, with their ends.
    sha256: String,
}

/// What a line after the first one is.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Line {
    Entry(Record),
    File(File),
    Trailer(Trailer),
}

/// What a line that was read brings.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    Header(Header),
    File(File),
    Entry(Record),
    /// All was read, and it is as it was written.
    End,
}

/// Writes lines.
#[derive(Default)]
pub(super) struct Writing {
    hash: Sha256,
    entries: u64,
}

impl Writing {
    pub(super) fn header(&mut self, header: &Header) -> Result<Vec<u8>> {
        self.line(header)
    }

    pub(super) fn file(&mut self, file: &File) -> Result<Vec<u8>> {
        self.line(file)
    }

    pub(super) fn entry(&mut self, record: &Record) -> Result<Vec<u8>> {
        self.entries += 1;
        self.line(record)
    }

    pub(super) fn trailer(mut self) -> Result<Vec<u8>> {
        let sha256 = hex(&self.hash.clone().finalize());
        let entries = self.entries;
        self.line(&Trailer { entries, sha256 })
    }

    /// How many entries there were so far.
    pub(super) fn entries(&self) -> u64 {
        self.entries
    }

    fn line(&mut self, line: &impl Serialize) -> Result<Vec<u8>> {
        let written = serde_json::to_vec(line);
        let mut text = written.map_err(|error| Error::Store {
            operation: "write a backup",
            reason: error.to_string(),
        })?;
        text.push(b'\n');
        self.hash.update(&text);
        Ok(text)
    }
}

/// Reads lines, and says what is wrong with them.
#[derive(Default)]
pub(super) struct Reading {
    hash: Sha256,
    begun: bool,
    entries: u64,
    /// The digest of a backup that was read to its end.
    ended: Option<String>,
}

impl Reading {
    /// Takes the next line, without its end.
    pub(super) fn line(&mut self, line: &[u8]) -> Result<Part, String> {
        if self.ended.is_some() {
            return Err("there is more after its last line".to_owned());
        }
        let before = self.hash.clone();
        self.hash.update(line);
        self.hash.update(b"\n");
        if !self.begun {
            self.begun = true;
            return header(line).map(Part::Header);
        }
        let nth = self.entries;
        let line = serde_json::from_slice(line)
            .map_err(|_| format!("what comes after its entry {nth} is not understood"))?;
        match line {
            Line::File(file) => Ok(Part::File(file)),
            Line::Entry(record) => {
                self.entries += 1;
                Ok(Part::Entry(record))
            }
            Line::Trailer(Trailer { entries, sha256 }) => {
                if entries != self.entries || sha256 != hex(&before.finalize()) {
                    return Err("it is damaged: it is not what was written".to_owned());
                }
                self.ended = Some(sha256);
                Ok(Part::End)
            }
        }
    }

    /// The digest and how many entries there were, when all was read.
    pub(super) fn end(&self) -> Result<(&str, u64), String> {
        match &self.ended {
            Some(digest) => Ok((digest, self.entries)),
            None if self.begun => Err("it is cut off: its last line is missing".to_owned()),
            None => Err("it is empty".to_owned()),
        }
    }
}

fn header(line: &[u8]) -> Result<Header, String> {
    // Its version is known before all that a later version may have changed.
    #[derive(Deserialize)]
    struct Versions {
        grid_backup: u32,
        #[serde(default)]
        schema: u32,
    }
    let foreign = |_| "it is no backup of Grid's".to_owned();
    let Versions { grid_backup, schema } = serde_json::from_slice(line).map_err(foreign)?;
    if grid_backup > VERSION || schema > SCHEMA {
        return Err(format!(
            "a newer Grid wrote it (version {grid_backup}, schema {schema}; this one knows {VERSION} \
             and {SCHEMA}): restore it with that one"
        ));
    }
    if (grid_backup, schema) != (VERSION, SCHEMA) {
        return Err(format!("it has the unknown version {grid_backup} and schema {schema}"));
    }
    serde_json::from_slice(line).map_err(|error| format!("its first line: {error}"))
}

/// In hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
