//! One directory per replica, mounted into its container, in which the edge listens for the call
//! home. Control makes and removes the directory, the edge puts the socket into it.

use std::{
    fs::Permissions,
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use tokio::{fs, net::UnixListener};

use crate::{
    error::{Error, Result},
    name::ReplicaId,
};

/// `$GRID_DATA_DIR/run`.
#[derive(Debug, Clone)]
pub struct RunDir(PathBuf);

impl RunDir {
    /// The directory for a data directory.
    pub fn of(data_dir: &Path) -> Self {
        Self(data_dir.join("run"))
    }

    /// The directory that is mounted into a replica's container.
    pub fn replica(&self, replica: &ReplicaId) -> PathBuf {
        self.0.join(replica.as_str())
    }

    /// Where the edge listens for a replica.
    pub fn socket(&self, replica: &ReplicaId) -> PathBuf {
        self.replica(replica).join("edge.sock")
    }

    /// Where the edge says which requests it has called back (runners/PROTOCOL.md).
    pub fn recalls(&self, replica: &ReplicaId) -> PathBuf {
        self.replica(replica).join("recalls")
    }

    /// Makes a replica's directory. The function's user must be able to pass through it.
    ///
    /// # Errors
    /// `File`.
    pub async fn create(&self, replica: &ReplicaId) -> Result<()> {
        let dir = self.replica(replica);
        fs::create_dir_all(&dir).await.map_err(Error::file("create", &dir))?;
        let mode = Permissions::from_mode(0o755);
        fs::set_permissions(&dir, mode).await.map_err(Error::file("set mode of", &dir))
    }

    /// Removes a replica's directory; one that is gone is no error.
    ///
    /// # Errors
    /// `File`.
    pub async fn remove(&self, replica: &ReplicaId) -> Result<()> {
        remove_tree(&self.replica(replica)).await
    }

    /// Removes what is left of replicas that are not `known`.
    ///
    /// # Errors
    /// `File`.
    pub async fn sweep(&self, known: impl Fn(&ReplicaId) -> bool) -> Result<()> {
        fs::create_dir_all(&self.0).await.map_err(Error::file("create", &self.0))?;
        let mut entries = fs::read_dir(&self.0).await.map_err(Error::file("list", &self.0))?;
        while let Some(entry) = entries.next_entry().await.map_err(Error::file("list", &self.0))? {
            let replica = entry.file_name().to_str().and_then(|name| ReplicaId::parse(name).ok());
            if replica.is_none_or(|replica| !known(&replica)) {
                remove_tree(&entry.path()).await?;
            }
        }
        Ok(())
    }
}

/// Puts a replica's socket where its container expects it.
///
/// # Errors
/// The system's.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    // The function's user has to be able to dial; nobody else reaches the directory.
    std::fs::set_permissions(path, Permissions::from_mode(0o666))?;
    Ok(listener)
}

async fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path).await {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::file("remove", path)(e)),
        _ => Ok(()),
    }
}
