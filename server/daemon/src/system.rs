//! What the operating system's errors mean to a replica and to whoever looks after it, and files that are nobody else's.
//!
//! Never here: what becomes of the replica. Invariant: an error that is named here says nothing about the data, which are as
//! they were.

use std::fs::{self, DirBuilder, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::{Mode, umask};

/// What to do about an error, as the end of a sentence that tells of it; empty where nobody knows.
pub(crate) fn advice(error: &io::Error) -> &'static str {
    if is_no_room(error) {
        return ". No room is left there: make some. The data are as they were";
    }
    if lacks_descriptors(error) {
        return ". The limit of open files is too low: raise it (`ulimit -n`, or LimitNOFILE= of systemd). The data are as \
                they were";
    }
    match error.kind() {
        ErrorKind::PermissionDenied => {
            ". All of the data directory must belong to the user that holdfastd runs as: `chown -R` it. The data are as \
             they were"
        }
        ErrorKind::ReadOnlyFilesystem => {
            ". The file system can only be read; the system's log may say why. The data are as they were"
        }
        _ => "",
    }
}

/// Whether the error says that there is no room for what was to be written.
pub(crate) fn is_no_room(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// Whether the error says something of what is there at the moment, and nothing of the disk: to try again later is right.
pub(crate) fn may_pass(error: &io::Error) -> bool {
    is_no_room(error)
        || lacks_descriptors(error)
        || matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::OutOfMemory)
}

fn lacks_descriptors(error: &io::Error) -> bool {
    let number = error.raw_os_error().map(Errno::from_raw);
    matches!(number, Some(Errno::EMFILE | Errno::ENFILE))
}

/// From now on this process makes no file that others could read or write. For programs that are replicas.
pub fn keep_files_private() {
    umask(Mode::S_IRWXG | Mode::S_IRWXO);
}

/// Makes a directory that nobody else may look into, if it is not there; those above it as is usual.
pub(crate) fn create_private_dir(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(PRIVATE_DIR).create(path) {
        // Somebody was faster, or it is no directory, which whoever opens it finds out.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        created => created,
    }
}

const PRIVATE_DIR: u32 = 0o700;
/// Others may get into the directory, or find out what is in it.
const OTHERS: u32 = 0o077;
const OTHERS_READ: u32 = 0o044;
const OTHERS_WRITE: u32 = 0o022;

/// Whether everybody on this machine, or everybody of the file's group, can read or change a file.
pub(crate) fn is_exposed(file: &Path) -> io::Result<bool> {
    Ok(fs::metadata(file)?.permissions().mode() & (OTHERS_READ | OTHERS_WRITE) != 0)
}

/// Something in or at `dir` that others may read or write; `None` if nobody else gets at its contents.
pub(crate) fn exposed(dir: &Path) -> io::Result<Option<PathBuf>> {
    let mode = |metadata: &Metadata| metadata.permissions().mode();
    let own = mode(&fs::metadata(dir)?);
    if own & OTHERS == 0 {
        return Ok(None);
    }
    if own & OTHERS_WRITE != 0 {
        return Ok(Some(dir.to_owned()));
    }
    let mut paths = fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        let metadata = fs::symlink_metadata(&path)?;
        let found = match metadata.is_dir() {
            true => exposed(&path)?,
            false if metadata.is_symlink() || metadata.len() == 0 => None,
            false => is_exposed(&path)?.then_some(path),
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_fault_of_the_disk_is_told_from_what_may_be() {
        for (number, passes, words) in [
            (Errno::ENOSPC, true, "make some"),
            (Errno::EDQUOT, true, "make some"),
            (Errno::EMFILE, true, "ulimit -n"),
            (Errno::ENFILE, true, "ulimit -n"),
            (Errno::EACCES, true, "chown -R"),
            (Errno::EROFS, false, "only be read"),
            (Errno::EIO, false, ""),
        ] {
            let error = io::Error::from_raw_os_error(number as i32);
            assert_eq!(may_pass(&error), passes, "{error}");
            assert!(
                advice(&error).contains(words) && advice(&error).is_empty() == words.is_empty(),
                "{error}"
            );
        }
    }

    #[test]
    fn a_directory_is_private_and_what_others_could_read_is_found_unless_they_cannot_get_there() {
        let root = tempfile::tempdir().unwrap();
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let dir = root.path().join("above/data");
        create_private_dir(&dir).unwrap();
        create_private_dir(&dir).unwrap();
        assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
        let (inner, file) = (dir.join("log"), dir.join("log/1"));
        create_private_dir(&inner).unwrap();
        fs::write(&file, "secret").unwrap();
        set(&file, 0o644);
        assert_eq!(exposed(&dir).unwrap(), None, "nobody gets there");
        set(&dir, 0o755);
        assert_eq!(exposed(&dir).unwrap(), None, "nobody gets into what it is in");
        set(&inner, 0o755);
        assert_eq!(exposed(&dir).unwrap(), Some(file.clone()));
        set(&file, 0o600);
        assert_eq!(exposed(&dir).unwrap(), None);
        set(&dir, 0o777);
        assert_eq!(exposed(&dir).unwrap(), Some(dir), "others may put something else into its place");
    }
}
