//! A disk so small that it can be filled: a file system in memory, for one replica.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// What these disks are called, in the directory of a run.
const NAME: &str = "holdfast-disk-";

/// Room for a replica's log and snapshots, and no more than can be filled at once.
const SIZE: &str = "size=48m";

/// The disk. It goes when it is dropped.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// A disk in this directory. `None` if it is not permitted here.
    #[must_use]
    pub fn mount(dir: &Path, replica: u64) -> Option<Self> {
        let path = dir.join(format!("{NAME}{replica}"));
        fs::create_dir_all(&path).ok()?;
        mount(
            Some(format!("{SOURCE}{}", std::process::id()).as_str()),
            &path,
            Some("tmpfs"),
            MsFlags::empty(),
            Some(SIZE),
        )
        .ok()?;
        Some(Self(path))
    }

    /// Where its files are.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Fills it to the last byte.
    ///
    /// # Errors
    ///
    /// If it cannot be written at all.
    pub fn fill(&self) -> std::io::Result<()> {
        let mut ballast = File::options().create(true).append(true).open(self.ballast())?;
        for length in [1 << 16, 1] {
            while ballast.write_all(&vec![0; length]).is_ok() {}
        }
        Ok(())
    }

    /// Makes room again.
    ///
    /// # Errors
    ///
    /// If it cannot.
    pub fn free(&self) -> std::io::Result<()> {
        // A process that is just being started has all files of this one open for a moment, and a file that is only
        // deleted takes its room until then.
        fs::write(self.ballast(), [])?;
        fs::remove_file(self.ballast())
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Whoever still has files open in it keeps it until he ends.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// Where a disk comes from, as the system lists it: names the process that made it.
const SOURCE: &str = "holdfast-disk-of-";

/// Unmounts the disks of runs that are no longer there.
pub fn remove_leftovers() {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for line in mounts.lines() {
        let mut words = line.split(' ');
        let process = words.next().and_then(|source| source.strip_prefix(SOURCE));
        let is_gone = process.is_some_and(|id| !Path::new("/proc").join(id).exists());
        if let (true, Some(path)) = (is_gone, words.next()) {
            let _ = umount2(Path::new(path), MntFlags::MNT_DETACH);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_disk_can_be_filled_and_freed() {
        let dir = tempfile::tempdir().unwrap();
        let Some(disk) = SmallDisk::mount(dir.path(), 3) else {
            return println!("no disk can be mounted here, so nothing is tested");
        };
        let file = disk.path().join("file");
        fs::write(&file, [1; 5000]).unwrap();
        disk.fill().unwrap();
        assert!(fs::write(disk.path().join("other"), [1; 5000]).is_err(), "no room is left");
        disk.free().unwrap();
        fs::write(disk.path().join("other"), [1; 5000]).unwrap();
        assert_eq!(fs::read(file).unwrap().len(), 5000);
        let path = disk.path().to_owned();
        drop(disk);
        assert_eq!(fs::read_dir(path).unwrap().count(), 0, "it is gone");
    }
}
