//! The file that holds the process's number while it runs.

use std::path::{Path, PathBuf};

/// A pid file, removed when dropped if it still holds our number: a successor may have written its
/// own. After a `chroot` or a change of user it may be out of reach; then it stays, as HAProxy's.
#[derive(Debug)]
pub(super) struct PidFile(PathBuf);

impl PidFile {
    /// Writes it.
    pub(super) fn write(path: &Path) -> Result<PidFile, String> {
        std::fs::write(path, format!("{}\n", std::process::id()))
            .map_err(|error| format!("Cannot write pidfile {}: {error}", path.display()))?;
        // Its directory may be left before it is removed.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Ok(PidFile(path))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let own = std::process::id().to_string();
        if std::fs::read_to_string(&self.0).is_ok_and(|text| text.trim() == own) {
            let _ = std::fs::remove_file(&self.0);
        }
    }
}
