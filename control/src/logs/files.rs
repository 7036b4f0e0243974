//! Kept entries: two files per service, lines of JSON. The older one goes when the newer is full, so
//! that a function that floods its log costs a known amount of disk.

use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use super::LogEntry;
use crate::{
    error::{Error, Result},
    name::ServiceId,
};

/// Services share locks: a file is used for a moment only.
const LOCKS: usize = 16;

/// The files of all services. Cheap to clone.
#[derive(Clone)]
pub(super) struct Files(Arc<Inner>);

struct Inner {
    dir: PathBuf,
    /// Bytes of each file.
    most: u64,
    locks: [Mutex<()>; LOCKS],
}

impl Files {
    /// Files under `dir`, of `bytes` per service in all.
    pub(super) fn new(dir: PathBuf, bytes: u64) -> Self {
        Self(Arc::new(Inner { dir, most: bytes / 2, locks: Default::default() }))
    }

    /// Adds entries behind all others.
    pub(super) async fn append(&self, service: ServiceId, entries: &[LogEntry]) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let text = self.newest_that_fit(entries);
        let files = Arc::clone(&self.0);
        blocking(move || files.append(service, &text)).await
    }

    /// Gives every entry of a service to `take`, oldest first.
    pub(super) async fn scan<T: Send + 'static>(
        &self,
        service: ServiceId,
        mut gathered: T,
        take: impl Fn(&mut T, LogEntry) + Send + 'static,
    ) -> Result<T> {
        let files = Arc::clone(&self.0);
        blocking(move || {
            files.scan(service, |entry| take(&mut gathered, entry))?;
            Ok(gathered)
        })
        .await
    }

    /// Removes everything of a service.
    pub(super) async fn forget(&self, service: ServiceId) -> Result<()> {
        let files = Arc::clone(&self.0);
        blocking(move || {
            let _turn = files.lock(service).lock();
            files.of(service).iter().try_for_each(|path| remove(path))
        })
        .await
    }

    /// Services that have files.
    pub(super) async fn services(&self) -> Result<HashSet<ServiceId>> {
        let files = Arc::clone(&self.0);
        blocking(move || {
            let listed = match fs::read_dir(&files.dir) {
                Ok(listed) => listed,
                Err(e) if e.kind() == ErrorKind::NotFound => return Ok(HashSet::new()),
                Err(e) => return Err(Error::file("list", &files.dir)(e)),
            };
            let names = listed.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
            Ok(names.filter_map(|name| name.split('.').next()?.parse().ok()).collect())
        })
        .await
    }

    /// Lines of JSON, of no more than one file's size.
    fn newest_that_fit(&self, entries: &[LogEntry]) -> String {
        let mut room = self.0.most;
        let mut lines = Vec::new();
        for entry in entries.iter().rev() {
            let Ok(line) = serde_json::to_string(entry) else { continue };
            let Some(left) = room.checked_sub(line.len() as u64 + 1) else { break };
            room = left;
            lines.push(line);
        }
        lines.into_iter().rev().flat_map(|line| [line, "\n".to_owned()]).collect()
    }
}

impl Inner {
    /// Older entries first.
    fn of(&self, service: ServiceId) -> [PathBuf; 2] {
        [self.dir.join(format!("{service}.1.jsonl")), self.dir.join(format!("{service}.jsonl"))]
    }

    fn lock(&self, service: ServiceId) -> &Mutex<()> {
        &self.locks[service.as_bytes()[15] as usize % LOCKS]
    }

    fn append(&self, service: ServiceId, text: &str) -> Result<()> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)
            .map_err(Error::file("create", &self.dir))?;
        let [older, newer] = self.of(service);
        let _turn = self.lock(service).lock();
        // The bound was larger on an earlier day.
        if older.metadata().is_ok_and(|older| older.len() > self.most) {
            remove(&older)?;
        }
        let (mut file, mut size) = open(&newer).map_err(Error::file("open", &newer))?;
        let mut rest = text;
        loop {
            let room = self.most.saturating_sub(size);
            let (fits, more) = split(rest, usize::try_from(room).unwrap_or(usize::MAX));
            file.write_all(fits.as_bytes()).map_err(Error::file("write", &newer))?;
            if more.is_empty() {
                return Ok(());
            }
            fs::rename(&newer, &older).map_err(Error::file("rename", &newer))?;
            (file, size) = open(&newer).map_err(Error::file("open", &newer))?;
            rest = more;
        }
    }

    fn scan(&self, service: ServiceId, mut take: impl FnMut(LogEntry)) -> Result<()> {
        let mut files = Vec::new();
        {
            // Opened together: between the two, the newer one may become the older.
            let _turn = self.lock(service).lock();
            for path in self.of(service) {
                match File::open(&path) {
                    Ok(file) => files.push((path, file)),
                    Err(e) if e.kind() == ErrorKind::NotFound => {}
                    Err(e) => return Err(Error::file("open", &path)(e)),
                }
            }
        }
        for (path, mut file) in files {
            let size = file.metadata().map_err(Error::file("read", &path))?.len();
            file.seek(SeekFrom::Start(size.saturating_sub(self.most)))
                .map_err(Error::file("read", &path))?;
            let mut reader = BufReader::new(file);
            let mut line = Vec::new();
            loop {
                line.clear();
                let read = reader.read_until(b'\n', &mut line);
                if read.map_err(Error::file("read", &path))? == 0 {
                    break;
                }
                // A line that a crash cut short is left out.
                serde_json::from_slice(&line).ok().map(&mut take);
            }
        }
        Ok(())
    }
}

/// The lines that have room, and the rest.
fn split(text: &str, room: usize) -> (&str, &str) {
    if text.len() <= room {
        return (text, "");
    }
    let end =
        text.as_bytes()[..room].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    text.split_at(end)
}

/// Opens a file to add to it, and says how large it is. It ends in a whole line then.
fn open(path: &Path) -> io::Result<(File, u64)> {
    let mut file =
        OpenOptions::new().create(true).read(true).append(true).mode(0o600).open(path)?;
    let metadata = file.metadata()?;
    if metadata.permissions().mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    let size = metadata.len();
    if size == 0 {
        return Ok((file, 0));
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    if last == *b"\n" {
        return Ok((file, size));
    }
    file.write_all(b"\n")?;
    Ok((file, size + 1))
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::file("remove", path)(e)),
        _ => Ok(()),
    }
}

/// Does what waits for the disk where nobody else waits.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let failed = |error| Error::file("use", Path::new("logs"))(io::Error::other(error));
    tokio::task::spawn_blocking(work).await.map_err(failed)?
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use tempfile::TempDir;

    use super::*;
    use crate::{logs::LogStream, name::ReplicaId};

    const BYTES: u64 = 4096;

    fn entries(range: std::ops::Range<i64>) -> Vec<LogEntry> {
        let entry = |nth| LogEntry {
            at: Timestamp::from_second(nth).expect("a time"),
            stream: LogStream::Stdout,
            replica: ReplicaId::parse("abcdefghijkl").expect("an id"),
            request_id: None,
            line: format!("line {nth}"),
        };
        range.map(entry).collect()
    }

    fn files() -> (TempDir, Files) {
        let dir = TempDir::new().expect("a directory");
        let files = Files::new(dir.path().join("logs"), BYTES);
        (dir, files)
    }

    async fn kept(files: &Files, service: ServiceId) -> Vec<i64> {
        let take = |seen: &mut Vec<i64>, entry: LogEntry| seen.push(entry.at.as_second());
        files.scan(service, Vec::new(), take).await.expect("read")
    }

    fn sizes(files: &Files, service: ServiceId) -> u64 {
        let sizes = files.0.of(service).map(|path| path.metadata().map_or(0, |found| found.len()));
        sizes.iter().sum()
    }

    #[tokio::test]
    async fn the_newest_entries_stay_within_the_bound() {
        let (_dir, files) = files();
        let service = ServiceId::new();
        for size in [1, 7, 500, 3] {
            for batch in 0..40 {
                files
                    .append(service, &entries(batch * size..(batch + 1) * size))
                    .await
                    .expect("kept");
                let kept = kept(&files, service).await;
                let last = (batch + 1) * size - 1;
                assert!(sizes(&files, service) <= BYTES);
                assert_eq!(kept.last(), Some(&last));
                let from = kept.len().saturating_sub(15);
                assert!(
                    kept[from..].iter().copied().eq(last + 1 - kept[from..].len() as i64..=last)
                );
            }
            assert!(sizes(&files, service) > BYTES / 2 - 200, "and they use it");
            files.forget(service).await.expect("gone");
            assert_eq!((kept(&files, service).await, sizes(&files, service)), (vec![], 0));
        }
    }

    #[tokio::test]
    async fn a_bound_that_was_lowered_holds_after_a_while() {
        let (dir, files) = files();
        let service = ServiceId::new();
        let before = Files::new(dir.path().join("logs"), BYTES * 8);
        before.append(service, &entries(0..150)).await.expect("kept");
        assert!(sizes(&files, service) > BYTES * 2);
        let seen = kept(&files, service).await;
        assert_eq!((seen.len() < 30, seen.last()), (true, Some(&149)), "the newest of them");
        for nth in 150..152 {
            files.append(service, &entries(nth..nth + 1)).await.expect("kept");
        }
        assert!(sizes(&files, service) <= BYTES);
        assert_eq!(kept(&files, service).await, [150, 151]);
    }

    #[tokio::test]
    async fn a_line_that_a_crash_cut_short_spoils_no_other() {
        let (_dir, files) = files();
        let service = ServiceId::new();
        files.append(service, &entries(0..2)).await.expect("kept");
        let [_, newer] = files.0.of(service);
        let text = fs::read(&newer).expect("a file");
        fs::write(&newer, &text[..text.len() - 9]).expect("cut");
        fs::set_permissions(&newer, Permissions::from_mode(0o644)).expect("a mode");
        files.append(service, &entries(2..3)).await.expect("kept");
        assert_eq!(kept(&files, service).await, [0, 2]);
        let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&newer), mode(&files.0.dir)), (0o600, 0o700));
    }

    #[tokio::test]
    async fn files_are_found_by_their_service() {
        let (_dir, files) = files();
        assert_eq!(files.services().await.expect("listed"), HashSet::new());
        let services = [ServiceId::new(), ServiceId::new()];
        for service in services {
            files.append(service, &entries(0..50)).await.expect("kept");
        }
        assert_eq!(files.services().await.expect("listed"), HashSet::from(services));
    }
}
