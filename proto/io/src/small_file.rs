//! Files that people write: configurations, certificates, keys.
//!
//! Invariant: a file that is too long, or has no end, such as a device that was named by mistake, is an error after
//! [`BYTES_MAX`], and not all of the memory.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// No file is read that has more: far more than anybody writes by hand, and too little to hurt.
pub const BYTES_MAX: u64 = 1 << 20;

/// Reads a file whole.
///
/// # Errors
///
/// Why it cannot be opened or read; [`io::ErrorKind::FileTooLarge`] if it has more than [`BYTES_MAX`].
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte more, so that a file which is too long shows.
    File::open(path)?.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > BYTES_MAX {
        let what = "it has more than 1 MiB, the most that is read of such a file";
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
    }
    Ok(bytes)
}

/// Reads a file whole that is text.
///
/// # Errors
///
/// As [`read`]; [`io::ErrorKind::InvalidData`] if it is not UTF-8.
pub fn read_to_string(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_the_greatest_length_is_read_whole_and_a_longer_one_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let longest = vec![b'#'; usize::try_from(BYTES_MAX).unwrap()];
        std::fs::write(&path, &longest).unwrap();
        assert!(read(&path).unwrap() == longest);
        std::fs::write(&path, [longest, vec![b'#']].concat()).unwrap();
        let error = read(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert!(error.to_string().contains("more than 1 MiB"), "{error}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_without_end_is_given_up() {
        assert_eq!(read(Path::new("/dev/zero")).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn what_is_no_text_is_not_read_as_text() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, b"\xff").unwrap();
        assert_eq!(read_to_string(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
