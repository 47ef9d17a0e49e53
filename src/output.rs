//! Where results go: standard output, and files that are whole or not there. What cannot be written is an error: a script
//! must not take an empty schema or half a report for the result.
//!
//! Not for what is appended to while the process runs: the access log and the recording.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Names tried for a file beside another: as many processes may write the same report at once.
const MOST_NAMES: u32 = 100;
/// Links to follow to a file, as the kernel does.
const MOST_LINKS: usize = 40;

/// Who reads standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    There,
    /// Has seen enough (`forebay schema | head`), which is no failure.
    Gone,
}

/// Writes a result to standard output.
///
/// # Errors
///
/// When it does not arrive there whole, as on a full disk.
pub fn print(text: &str) -> io::Result<Reader> {
    let mut stdout = io::stdout().lock();
    arrived(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()))
}

/// What an attempt to write to standard output means.
///
/// # Errors
///
/// As [`print()`].
pub fn arrived(written: io::Result<()>) -> io::Result<Reader> {
    match written {
        Ok(()) => Ok(Reader::There),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(io::Error::new(error.kind(), format!("cannot write to standard output: {error}"))),
    }
}

/// Writes a file anew, as [`NewFile`] does.
///
/// # Errors
///
/// When it cannot be written; what was there before is there still.
pub fn write_file(path: &Path, content: &[u8]) -> io::Result<()> {
    NewFile::open(path)?.write(content)
}

/// A file that is written beside its place and moved there when it is whole, so that a full disk leaves the old one alone.
/// Pipes, terminals and the like are written as they are; so is a file whose folder lets nobody make another.
#[derive(Debug)]
pub struct NewFile {
    file: File,
    /// Where it is, and where it is to be.
    moving: Option<(PathBuf, PathBuf)>,
}

impl NewFile {
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn open(path: &Path) -> io::Result<Self> {
        let Some(place) = place(path)? else {
            return Ok(Self { file: OpenOptions::new().write(true).open(path)?, moving: None });
        };
        // What may not be written is not to be replaced either.
        let old = match OpenOptions::new().write(true).open(&place) {
            Ok(old) => Some(old),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        match (beside(&place), old) {
            (Ok((file, at)), old) => {
                let new = Self { file, moving: Some((at, place)) };
                if let Some(old) = old {
                    new.file.set_permissions(old.metadata()?.permissions())?;
                }
                Ok(new)
            }
            (Err(error), Some(_)) if is_refused(&error) => Ok(Self { file: File::create(&place)?, moving: None }),
            (Err(error), _) => Err(error),
        }
    }

    /// # Errors
    ///
    /// When it cannot be written.
    pub fn write(mut self, content: &[u8]) -> io::Result<()> {
        self.file.write_all(content)?;
        let Some((at, place)) = &self.moving else { return Ok(()) };
        // Some file systems tell only here that there is no space.
        self.file.sync_all()?;
        match std::fs::rename(at, place) {
            // A file that is mounted by itself, as into a container, can only be written where it is.
            Err(error) if error.kind() == ErrorKind::ResourceBusy => return std::fs::write(place, content),
            renamed => renamed?,
        }
        self.moving = None;
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some((at, _)) = &self.moving {
            // Nobody needs the part, and whoever dropped it has a better error to tell.
            let _ = std::fs::remove_file(at);
        }
    }
}

/// The file that a path leads to over links, there or not; none when it is no plain file, or is open already as
/// `/dev/stdout` is: others hold it, and would not see another in its place.
fn place(path: &Path) -> io::Result<Option<PathBuf>> {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let folder = folder.canonicalize()?;
        if folder.starts_with("/proc") {
            return Ok(None);
        }
        let place = folder.join(name);
        match place.symlink_metadata() {
            Ok(found) if found.is_symlink() => path = folder.join(place.read_link()?),
            Ok(found) => return Ok(found.is_file().then_some(place)),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Some(place)),
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::from_raw_os_error(rustix::io::Errno::LOOP.raw_os_error()))
}

/// A new file in the same folder, with its name.
fn beside(place: &Path) -> io::Result<(File, PathBuf)> {
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    let process = std::process::id();
    let mut last = None;
    for number in 0..MOST_NAMES {
        let at = place.with_file_name(format!(".{name}.{process}.{number}.part"));
        match OpenOptions::new().write(true).create_new(true).open(&at) {
            Ok(file) => return Ok((file, at)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => last = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(last.unwrap_or_else(|| ErrorKind::AlreadyExists.into()))
}

fn is_refused(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_old_file_stays_until_the_new_one_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        std::fs::write(&path, "old").unwrap();

        let new = NewFile::open(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        new.write(b"new").unwrap();

        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(names(folder.path()), ["report.json"]);
    }

    #[test]
    fn what_is_given_up_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();

        drop(NewFile::open(&folder.path().join("report.json")).unwrap());

        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn a_link_and_the_permissions_of_what_it_leads_to_stay() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("first.json"), "old").unwrap();
        std::fs::set_permissions(at("first.json"), std::fs::Permissions::from_mode(0o640)).unwrap();
        symlink("first.json", at("latest.json")).unwrap();

        write_file(&at("latest.json"), b"new").unwrap();

        assert_eq!(std::fs::read_to_string(at("first.json")).unwrap(), "new");
        assert_eq!(at("first.json").metadata().unwrap().permissions().mode() & 0o777, 0o640);
        assert!(at("latest.json").symlink_metadata().unwrap().is_symlink());
    }

    #[test]
    fn a_pipe_is_written_to_and_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        let from = path.clone();
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            File::open(from).unwrap().read_to_string(&mut text).unwrap();
            text
        });

        write_file(&path, b"new").unwrap();

        assert_eq!(reader.join().unwrap(), "new");
        assert_eq!(names(folder.path()), ["pipe"]);
    }

    /// `--report-json /dev/stdout >file`: whoever opened the file has to find the report in it.
    #[test]
    fn a_file_that_is_open_already_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let open = File::create(&path).unwrap();
        let name = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&open));
        symlink(&name, folder.path().join("stdout")).unwrap();

        write_file(&folder.path().join("stdout"), b"new").unwrap();

        assert_eq!(open.metadata().unwrap().len(), 3);
    }

    #[test]
    fn a_missing_folder_and_a_folder_in_the_place_are_errors() {
        let folder = tempfile::tempdir().unwrap();

        assert_eq!(write_file(&folder.path().join("nowhere/a"), b"").unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(write_file(folder.path(), b"").unwrap_err().kind(), ErrorKind::IsADirectory);
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn only_a_reader_who_left_is_no_error() {
        assert_eq!(arrived(Ok(())).unwrap(), Reader::There);
        assert_eq!(arrived(Err(ErrorKind::BrokenPipe.into())).unwrap(), Reader::Gone);
        let error = arrived(Err(ErrorKind::StorageFull.into())).unwrap_err().to_string();
        assert!(error.starts_with("cannot write to standard output: "), "{error}");
    }
}
