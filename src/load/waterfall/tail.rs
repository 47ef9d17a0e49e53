//! Following a file that grows: whole lines from where it ended when it was opened, also when it is rotated or emptied.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Read at once.
const CHUNK: usize = 256 * 1024;
/// A line that is longer is none of ours, whose longest have 48 KiB.
const LONGEST: usize = 128 * 1024;

#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    file: File,
    chunk: Vec<u8>,
    /// A line of which the end has not come yet.
    rest: Vec<u8>,
    /// The rest belongs to a line that is too long: it is passed over.
    is_too_long: bool,
}

impl Tail {
    /// # Errors
    ///
    /// When there is no such file, or it is none that can be followed.
    pub fn open(path: &Path) -> io::Result<Self> {
        // Before it is opened: opening a pipe waits for whoever writes into it.
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "this is not a regular file"));
        }
        let mut file = File::open(path)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self { path: path.to_owned(), file, chunk: vec![0; CHUNK], rest: Vec::new(), is_too_long: false })
    }

    /// Gives what has come since, at most a chunk; whether there may be more at once.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn read(&mut self, mut line: impl FnMut(&[u8])) -> io::Result<bool> {
        let count = self.file.read(&mut self.chunk)?;
        if count == 0 {
            return self.reopen();
        }
        let mut new = &self.chunk[..count];
        while let Some(end) = memchr::memchr(b'\n', new) {
            let (text, after) = (&new[..end], &new[end + 1..]);
            new = after;
            if self.rest.is_empty() && !self.is_too_long {
                line(text);
                continue;
            }
            self.rest.extend_from_slice(text);
            if !self.is_too_long {
                line(&self.rest);
            }
            self.rest.clear();
            self.is_too_long = false;
        }
        self.rest.extend_from_slice(new);
        if self.rest.len() > LONGEST {
            self.rest.clear();
            self.is_too_long = true;
        }
        Ok(count == CHUNK)
    }

    /// Looks whether the name stands for another file by now, or this one was emptied. Between the two, or without
    /// permission, the old one is as good as any.
    fn reopen(&mut self) -> io::Result<bool> {
        let Ok(named) = fs::metadata(&self.path) else { return Ok(false) };
        let same = |one: &Metadata, other: &Metadata| (one.dev(), one.ino()) == (other.dev(), other.ino());
        if same(&self.file.metadata()?, &named) {
            let is_emptied = named.len() < self.file.stream_position()?;
            if is_emptied {
                self.file.rewind()?;
                self.rest.clear();
            }
            return Ok(is_emptied);
        }
        let Ok(file) = File::open(&self.path) else { return Ok(false) };
        self.file = file;
        self.rest.clear();
        Ok(true)
    }
}
