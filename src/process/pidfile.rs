//! The file that holds the process's number while it runs.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Who reads a pid file may signal what it names: it is written by its owner alone.
const MODE: u32 = 0o644;

/// A pid file. It is opened while its directory can be reached, and written when the process runs:
/// one that fails to start leaves the number of the one whose place it wanted.
///
/// It is removed when dropped if it holds our number or nothing of ours: a successor may have
/// written its own. After a `chroot` or a change of user it may be out of reach; then it stays, as
/// HAProxy's.
#[derive(Debug)]
pub(super) struct PidFile {
    path: PathBuf,
    file: File,
    /// It was not there before and holds nothing yet.
    is_new: bool,
}

impl PidFile {
    /// Opens it.
    pub(super) fn open(path: &Path) -> Result<PidFile, String> {
        let mut options = OpenOptions::new();
        options.write(true).mode(MODE);
        let made = options.clone().create_new(true).open(path);
        let is_new = made.is_ok();
        let file = made
            .or_else(|_| options.create(true).truncate(false).open(path))
            .map_err(|error| format!("Cannot write pidfile {}: {error}", path.display()))?;
        // Its directory may be left before it is removed.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Ok(PidFile { path, file, is_new })
    }

    /// Writes it.
    pub(super) fn write(&mut self) -> Result<(), String> {
        let number = format!("{}\n", std::process::id());
        let write = || {
            self.file.set_len(0)?;
            self.file.write_all_at(number.as_bytes(), 0)
        };
        write()
            .map_err(|error| format!("Cannot write pidfile {}: {error}", self.path.display()))?;
        self.is_new = false;
        Ok(())
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let own = std::process::id().to_string();
        let is_ours = |text: String| text.trim() == own || (self.is_new && text.is_empty());
        if std::fs::read_to_string(&self.path).is_ok_and(is_ours) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_another_process_wrote_stays_until_we_run() {
        let path = std::env::temp_dir().join(format!("tidegate-pid-{}", std::process::id()));
        std::fs::write(&path, "a longer text than a number\n").unwrap();
        let before = std::fs::read_to_string(&path).unwrap();
        drop(PidFile::open(&path).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), before);
        let mut file = PidFile::open(&path).unwrap();
        file.write().unwrap();
        file.write().unwrap();
        let own = format!("{}\n", std::process::id());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), own);
        // A successor's is not removed.
        std::fs::write(&path, "1\n").unwrap();
        drop(file);
        assert!(path.exists());
        std::fs::remove_file(&path).unwrap();
        let file = PidFile::open(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o022, 0, "{mode:o}");
        drop(file);
        assert!(!path.exists());
    }
}
