//! The site of an appliance: a new one made beside the one that is served, then put in its place.
//!
//! In: an archive (tar, gzip or not). Out: the site of before, which stays for `take_back`.
//! Must not: touch what is served before all of the new one is on the disk; leave the folder,
//! whatever an archive's names and links say (tar's `unpack_in` sees to that).
//! Read first: tar(5), rename(2).
//!
//! ```text
//!  www --hard links--> www.new <--unpacked over-- archive      synced, exchanged with www
//!  www <-------------> www.old                                 for the way back
//! ```
//! What a program writes in place into a file that both have is in both; what it makes anew is not.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::lchown;
use std::path::{Component, Path, PathBuf};

use flate2::read::MultiGzDecoder;
use rustix::fs::{CWD, RenameFlags, renameat_with, statvfs};

use super::disk::sync_at;
use super::file::{named, remove_tree};

const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Where a site is, and who it belongs to.
#[derive(Debug, Clone)]
pub struct Site {
    pub folder: PathBuf,
    pub owner: u32,
    /// What stays free of the file system, in percent: the database's.
    pub spare: u64,
}

/// What came of an archive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    pub files: u64,
    pub bytes: u64,
}

impl Site {
    fn beside(&self, suffix: &str) -> PathBuf {
        self.folder.with_extension(suffix)
    }

    /// Takes what is in the archive over what is served, or in its place (`is_whole`).
    pub fn replace(&self, archive: impl Read, is_whole: bool) -> io::Result<Taken> {
        let new = self.beside("new");
        remove_tree(&new)?;
        let taken = self.fill(&new, archive, is_whole);
        if taken.is_err() {
            let _what_is_left_goes_next_time = remove_tree(&new);
        }
        let taken = taken?;
        remove_tree(&self.beside("old"))?;
        exchange(&new, &self.folder)?;
        fs::rename(&new, self.beside("old"))?;
        self.sync()?;
        Ok(taken)
    }

    /// Puts the site of before in its place again; the other way round the next time.
    pub fn take_back(&self) -> io::Result<()> {
        let old = self.beside("old");
        if !old.is_dir() {
            return Err(io::Error::other("there is no site of before"));
        }
        exchange(&old, &self.folder)?;
        self.sync()
    }

    fn fill(&self, new: &Path, archive: impl Read, is_whole: bool) -> io::Result<Taken> {
        if is_whole {
            fs::create_dir(new)?;
        } else {
            link_tree(&self.folder, new)?;
        }
        let taken = self.unpack(archive, new)?;
        own_tree(new, self.owner)?;
        self.sync().map(|()| taken)
    }

    fn unpack(&self, mut archive: impl Read, new: &Path) -> io::Result<Taken> {
        let mut head = Vec::new();
        archive.by_ref().take(2).read_to_end(&mut head)?;
        let is_gzip = head == GZIP;
        let whole = io::Cursor::new(head).chain(archive);
        match is_gzip {
            true => self.unpack_tar(MultiGzDecoder::new(whole), new),
            false => self.unpack_tar(whole, new),
        }
    }

    fn unpack_tar(&self, archive: impl Read, new: &Path) -> io::Result<Taken> {
        let mut taken = Taken::default();
        let mut at_top = BTreeSet::new();
        let mut has_file_at_top = false;
        for entry in tar::Archive::new(archive).entries()? {
            let mut entry = entry?;
            let path = entry.path()?.into_owned();
            let is_folder = entry.header().entry_type().is_dir();
            self.make_sure_of_room(new, entry.size())?;
            if !entry.unpack_in(new).map_err(|error| named(&path, error))? {
                let why = "the archive names a place outside of the site";
                return Err(named(&path, io::Error::other(why)));
            }
            if !is_folder {
                taken.files += 1;
                taken.bytes += entry.size();
            }
            let mut parts = path.components().filter(|part| *part != Component::CurDir);
            if let Some(first) = parts.next() {
                has_file_at_top |= parts.next().is_none() && !is_folder;
                at_top.insert(PathBuf::from(first.as_os_str()));
            }
        }
        match at_top.first() {
            None => Err(io::Error::other("there is no file in the archive")),
            Some(only) if at_top.len() == 1 && !has_file_at_top => Err(io::Error::other(format!(
                "all that is in the archive is in its folder {0}: pack what is in that, tar -C {0} \
                 -czf site.tgz .",
                only.display()
            ))),
            Some(_) => Ok(taken),
        }
    }

    fn make_sure_of_room(&self, new: &Path, bytes: u64) -> io::Result<()> {
        let room = statvfs(new)?;
        let spare = room.f_blocks * room.f_frsize / 100 * self.spare;
        if room.f_bavail * room.f_frsize < bytes.saturating_add(spare) {
            let spare = self.spare;
            let why =
                format!("no room for it: {spare} % of the data partition stay the database's");
            return Err(io::Error::other(why));
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let parent = self.folder.parent().unwrap_or_else(|| Path::new("/"));
        sync_at(&parent.to_string_lossy())?;
        File::open(parent)?.sync_all()
    }
}

fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)
        .map_err(|errno| named(other, errno.into()))
}

/// A tree of the same files; folders are new ones.
fn link_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let there = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            link_tree(&entry.path(), &there)?;
        } else {
            fs::hard_link(entry.path(), &there).map_err(|error| named(&entry.path(), error))?;
        }
    }
    Ok(())
}

fn own_tree(folder: &Path, owner: u32) -> io::Result<()> {
    lchown(folder, Some(owner), Some(owner))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            own_tree(&entry.path(), owner)?;
        } else {
            lchown(entry.path(), Some(owner), Some(owner))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    /// A site of one page and an upload, in a folder of its own.
    fn site(name: &str) -> Site {
        let folder = std::env::temp_dir().join(format!("tandem-{name}-{}", std::process::id()));
        remove_tree(&folder).expect("a clean place");
        fs::create_dir_all(folder.join("www/uploads")).expect("folders");
        fs::write(folder.join("www/index.php"), "one").expect("a file");
        fs::write(folder.join("www/uploads/cat"), "cat").expect("a file");
        let owner = fs::metadata(&folder).expect("it is there").uid();
        Site { folder: folder.join("www"), owner, spare: 0 }
    }

    fn archive(files: &[(&str, &str)]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(u64::try_from(content.len()).expect("short"));
            header.set_mode(0o4755);
            // Past the checks of `set_path`.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_cksum();
            archive.append(&header, content.as_bytes()).expect("memory");
        }
        archive.into_inner().expect("memory")
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut coder = GzEncoder::new(Vec::new(), Compression::fast());
        io::Write::write_all(&mut coder, bytes).expect("memory");
        coder.finish().expect("memory")
    }

    fn read(site: &Site, path: &str) -> Option<String> {
        fs::read_to_string(site.folder.join(path)).ok()
    }

    #[test]
    fn a_new_site_is_taken_over_the_old_one_or_in_its_place_and_taken_back() {
        let site = site("site");
        let new = archive(&[("./index.php", "two"), ("./css/a.css", "x")]);
        let taken = site.replace(&gzip(&new)[..], false).expect("it is taken");
        assert_eq!(taken, Taken { files: 2, bytes: 4 });
        assert_eq!(read(&site, "index.php").as_deref(), Some("two"));
        assert_eq!(read(&site, "uploads/cat").as_deref(), Some("cat"), "what it does not have");
        let mode = fs::metadata(site.folder.join("index.php")).expect("there").mode();
        assert_eq!(mode & 0o7777, 0o755, "no set-user-ID");

        site.take_back().expect("it is taken back");
        assert_eq!(read(&site, "index.php").as_deref(), Some("one"));
        assert_eq!(read(&site, "css/a.css"), None);
        site.take_back().expect("and forth");
        assert_eq!(read(&site, "index.php").as_deref(), Some("two"));

        site.replace(&new[..], true).expect("it is taken");
        assert_eq!(read(&site, "uploads/cat"), None);
        site.take_back().expect("it is taken back");
        assert_eq!(read(&site, "uploads/cat").as_deref(), Some("cat"));
        remove_tree(site.folder.parent().expect("a folder")).expect("removed");
    }

    #[test]
    fn what_is_no_site_changes_nothing() {
        let site = site("no-site");
        let cut = archive(&[("index.php", "two"), ("big", &"x".repeat(5000))]);
        for (bytes, expected) in [
            (archive(&[("../index.php", "out")]), "outside of the site"),
            (archive(&[("wordpress/index.php", "deep")]), "all that is in the archive is in its"),
            (Vec::new(), "no file in the archive"),
            (cut[..2000].to_vec(), ""),
            (b"<html>404</html>".repeat(64), ""),
            (gzip(&cut)[..60].to_vec(), ""),
        ] {
            let why = site.replace(&bytes[..], false).expect_err("it is no site").to_string();
            assert!(why.contains(expected), "{why}");
            assert_eq!(read(&site, "index.php").as_deref(), Some("one"), "{why}");
            assert!(!site.beside("new").exists() && !site.beside("old").exists(), "{why}");
        }
        assert!(site.take_back().is_err());
        let full = Site { spare: 100, ..site.clone() };
        let why = full.replace(&cut[..], false).expect_err("there is no room").to_string();
        assert!(why.contains("no room for it"), "{why}");
        remove_tree(site.folder.parent().expect("a folder")).expect("removed");
    }
}
