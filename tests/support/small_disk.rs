//! A private file system, in a mount namespace that disappears with it: a tmpfs that can be filled and made read-only,
//! or a disk that can be made to hang.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::hallway::BULLHORN;

/// The file that fills it.
const FILLER: &str = "filler";

/// The file system. Only programs started with [`SmallDisk::bullhorn`] see it under its own path.
#[derive(Debug)]
pub struct SmallDisk {
    place: TempDir,
    keeper: Child,
    enter: Vec<String>,
}

impl SmallDisk {
    /// Makes one of `kib` KiB. Needs root, or a system that allows users to make namespaces; there is no other way to
    /// get a real file system, so without either this fails.
    pub fn new(kib: usize) -> Self {
        let place = tempfile::tempdir().unwrap();
        let is_root =
            std::fs::metadata("/proc/self").is_ok_and(|it| std::os::unix::fs::MetadataExt::uid(&it) == 0);
        let (unshare, nsenter): (&[&str], &[&str]) = match is_root {
            true => (&["-m"], &["-m"]),
            false => (&["-r", "-m"], &["-U", "-m", "--preserve-credentials"]),
        };
        let mount = format!("mount -t tmpfs -o size={kib}k,mode=700 tmpfs '{}'", place.path().display());
        Self::mount(place, &mount, unshare, nsenter)
    }

    /// Makes one that can hang, as an SD card or a network file system does. Needs root and a loop device.
    pub fn that_hangs() -> Self {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().display();
        // The image is deleted with the folder, which the mounted file system hides.
        let mount = format!(
            "truncate -s 24M '{path}/image' && mkfs.ext4 -q -F '{path}/image' && \
             mount -o loop '{path}/image' '{path}' && chmod 700 '{path}'"
        );
        Self::mount(place, &mount, &["-m"], &["-m"])
    }

    fn mount(place: TempDir, mount: &str, unshare: &[&str], nsenter: &[&str]) -> Self {
        let mount = format!("{mount} && echo mounted && exec sleep 1000000");
        let mut keeper = Command::new("unshare")
            .args(unshare)
            .args(["--propagation", "private", "sh", "-c", &mount])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare is missing: install util-linux");
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(keeper.stdout.take().unwrap()), &mut line)
            .unwrap();
        assert_eq!(
            line, "mounted\n",
            "no namespace with a file system of its own can be had here: run this as root"
        );
        let id = keeper.id().to_string();
        let enter = ["nsenter", "-t", &id]
            .iter()
            .chain(nsenter)
            .chain(&["--"])
            .map(|&word| word.to_owned())
            .collect();
        Self { place, keeper, enter }
    }

    /// Its path, as the programs see it.
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// A path on it, as this process sees it.
    pub fn outside(&self, name: &str) -> PathBuf {
        let inside = self.place.path().join(name);
        Path::new(&format!("/proc/{}/root", self.keeper.id())).join(inside.strip_prefix("/").unwrap())
    }

    /// A command that becomes `bullhorn` and sees the disk.
    pub fn bullhorn(&self) -> Command {
        let mut command = Command::new(&self.enter[0]);
        command.args(&self.enter[1..]).arg(BULLHORN);
        command
    }

    /// Makes all writes wait until the value is dropped.
    pub fn hang(&self) -> Hanging {
        let path = self.place.path().display();
        let freeze = format!("fsfreeze -f '{path}' && echo frozen; read -r _; fsfreeze -u '{path}'");
        let mut keeper = Command::new(&self.enter[0])
            .args(&self.enter[1..])
            .args(["sh", "-c", &freeze])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(keeper.stdout.take().unwrap()), &mut line)
            .unwrap();
        assert_eq!(line, "frozen\n");
        Hanging { keeper }
    }

    fn run(&self, words: &[&str]) {
        let status = Command::new(&self.enter[0]).args(&self.enter[1..]).args(words).status().unwrap();
        assert!(status.success(), "{words:?}");
    }

    /// Fills it except for `pages` pages of 4 KiB.
    pub fn fill_but(&self, pages: usize) {
        let path = self.outside(FILLER);
        let mut filler = std::fs::OpenOptions::new().append(true).create(true).open(&path).unwrap();
        while filler.write_all(&[0; 4_096]).is_ok() {}
        let length = filler.metadata().unwrap().len();
        filler.set_len((length / 4_096).saturating_sub(pages as u64) * 4_096).unwrap();
    }

    /// Makes room again.
    pub fn empty(&self) {
        std::fs::remove_file(self.outside(FILLER)).unwrap();
    }

    /// Forbids writing, or allows it again.
    pub fn set_read_only(&self, read_only: bool) {
        let options = if read_only { "remount,bind,ro" } else { "remount,bind,rw" };
        self.run(&["mount", "-o", options, &self.place.path().display().to_string()]);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(self.keeper.kill());
        drop(self.keeper.wait());
    }
}

/// A disk that hangs.
#[derive(Debug)]
pub struct Hanging {
    keeper: Child,
}

impl Drop for Hanging {
    fn drop(&mut self) {
        // The shell reads the end of its input, and resumes the disk.
        drop(self.keeper.stdin.take());
        drop(self.keeper.wait());
    }
}
