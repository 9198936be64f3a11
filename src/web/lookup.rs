//! Lookup: which file a path means, found by asking for one candidate after the other.
//!
//! In: a normalised path, then what the hands found at each candidate. Out: a verdict: send it, run
//! it, redirect, or refuse. Must not: touch files itself, run a script that is not there.
//! Read first: nginx ngx_http_index_module, try_files; facts/web.md 1.5 ("Script choice").

use super::coding::{self, Accepted, Coding};
use super::site::{Site, Sites};
use super::{files, path};

/// One path's lookup.
#[derive(Debug)]
pub struct Lookup {
    /// The site's number.
    site: usize,
    path: Vec<u8>,
    stage: Stage,
    accepted: Accepted,
    /// The file that was found, while coded ones beside it are looked for.
    plain: Option<Vec<u8>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The path names a script that ends here.
    Script(usize),
    Plain,
    /// The path is a directory; this entry of `Site.index` is tried.
    Index(usize),
    /// Nothing was found; `/index.php` is tried (Site.front_controller).
    Front,
    /// A file was found; one in this coding beside it is tried, or itself again where none is.
    Coded(Option<Coding>),
}

/// What is at a candidate path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    File(Meta),
    Directory,
    Missing,
    /// Permission, a symbolic link that leads outside, a device.
    Denied,
    /// The system is short of something (descriptors, memory).
    Failed,
}

/// What the answer's headers need to know of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Meta {
    pub size_bytes: u64,
    pub modified_unix_seconds: u64,
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Ask for the next candidate.
    Again,
    /// Send the file that was found last.
    Send(Meta),
    Run(Script),
    /// 301 to this path, unescaped, with a slash at its end.
    Redirect(Vec<u8>),
    Refuse(u16),
}

/// A script below the document root, and what follows it in the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    pub name: Vec<u8>,
    pub path_info: Vec<u8>,
}

const FRONT: &[u8] = b"/index.php";

impl Lookup {
    #[must_use]
    pub fn new(site: usize, path: Vec<u8>) -> Self {
        let stage = path::script_end(&path).map_or(Stage::Plain, Stage::Script);
        Self { site, path, stage, accepted: Accepted::default(), plain: None }
    }

    #[must_use]
    pub const fn accepting(mut self, accepted: Accepted) -> Self {
        self.accepted = accepted;
        self
    }

    /// The coding of the file that was found.
    #[must_use]
    pub const fn coding(&self) -> Option<Coding> {
        if let Stage::Coded(coding) = self.stage { coding } else { None }
    }

    /// The path whose suffix tells the media type.
    #[must_use]
    pub fn plain(&self, sites: &Sites) -> Vec<u8> {
        self.plain.clone().unwrap_or_else(|| self.candidate(sites))
    }

    /// The number of the site whose files are looked at.
    #[must_use]
    pub const fn site(&self) -> usize {
        self.site
    }

    #[must_use]
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// The path to look at, without a slash at its end but for the root.
    #[must_use]
    pub fn candidate(&self, sites: &Sites) -> Vec<u8> {
        match self.stage {
            Stage::Script(end) => self.path.get(..end).unwrap_or_default().to_vec(),
            Stage::Plain => match self.path.strip_suffix(b"/") {
                Some(path) if !path.is_empty() => path.to_vec(),
                Some(_) | None => self.path.clone(),
            },
            Stage::Index(index) => {
                let index = &sites.site(self.site).index.get(index);
                let name = index.map(String::as_bytes).unwrap_or_default();
                [&self.path, name].concat()
            }
            Stage::Front => FRONT.to_vec(),
            Stage::Coded(coding) => {
                let plain = self.plain.as_deref().unwrap_or_default();
                [plain, coding.map_or("", Coding::suffix).as_bytes()].concat()
            }
        }
    }

    /// The path of the file that was found, which decides its media type.
    pub fn handle(&mut self, sites: &Sites, found: Found) -> Verdict {
        let site = sites.site(self.site);
        let has_slash = self.path.ends_with(b"/");
        match (self.stage, found) {
            (Stage::Coded(_), Found::File(meta)) => Verdict::Send(meta),
            (Stage::Coded(Some(coding)), _) => self.try_coding(Some(coding)),
            (_, Found::Failed) => Verdict::Refuse(503),
            (_, Found::Denied) => Verdict::Refuse(403),
            (Stage::Script(end), Found::File(_)) => {
                let (name, path_info) = self.path.split_at(end);
                if path::has_dot_segment(name) {
                    return Verdict::Refuse(404);
                }
                if !site.may_run(name) {
                    return Verdict::Refuse(403);
                }
                Verdict::Run(Script { name: name.to_vec(), path_info: path_info.to_vec() })
            }
            // A directory may be called x.php; what is below it is no script of that name.
            (Stage::Script(_), Found::Directory) => {
                self.stage = Stage::Plain;
                Verdict::Again
            }
            (Stage::Plain, Found::File(meta)) if !has_slash => {
                if path::is_hidden(&self.path) {
                    Verdict::Refuse(404)
                } else {
                    self.choose(site, self.path.clone(), meta)
                }
            }
            (Stage::Plain, Found::Directory) if has_slash => self.try_index(site, 0),
            (Stage::Plain, Found::Directory) if path::is_hidden(&self.path) => Verdict::Refuse(404),
            (Stage::Plain, Found::Directory) => {
                Verdict::Redirect([self.path.as_slice(), b"/"].concat())
            }
            (Stage::Index(_), Found::File(meta)) => {
                let name = self.candidate(sites);
                if path::script_end(&name) == Some(name.len()) {
                    if path::has_dot_segment(&name) {
                        return Verdict::Refuse(404);
                    }
                    if !site.may_run(&name) {
                        return Verdict::Refuse(403);
                    }
                    Verdict::Run(Script { name, path_info: Vec::new() })
                } else if path::is_hidden(&name) {
                    Verdict::Refuse(404)
                } else {
                    self.choose(site, name, meta)
                }
            }
            (Stage::Index(index), Found::Missing | Found::Directory) => {
                self.try_index(site, index + 1)
            }
            (Stage::Front, Found::File(_)) => {
                Verdict::Run(Script { name: FRONT.to_vec(), path_info: Vec::new() })
            }
            (Stage::Script(_) | Stage::Plain, Found::Missing | Found::File(_)) => {
                self.try_front(site, 404)
            }
            (Stage::Front | Stage::Coded(None), Found::Missing | Found::Directory) => {
                Verdict::Refuse(404)
            }
        }
    }

    /// A file can be sent: as it is, or as one that lies beside it.
    fn choose(&mut self, site: &Site, name: Vec<u8>, meta: Meta) -> Verdict {
        let is_coded = Coding::ALL.iter().any(|&coding| self.accepted.takes(coding));
        let is_text = || coding::is_text(files::media_type(&name).as_bytes());
        if site.gzip_static && is_coded && is_text() {
            self.plain = Some(name);
            return self.try_coding(None);
        }
        Verdict::Send(meta)
    }

    /// The next coding that the client takes, in the order of `Coding::ALL`.
    fn try_coding(&mut self, before: Option<Coding>) -> Verdict {
        let next = Coding::ALL
            .into_iter()
            .skip_while(|&coding| before.is_some_and(|before| coding != before))
            .skip(usize::from(before.is_some()))
            .find(|&coding| self.accepted.takes(coding));
        self.stage = Stage::Coded(next);
        Verdict::Again
    }

    fn try_index(&mut self, site: &Site, index: usize) -> Verdict {
        if index < site.index.len() {
            self.stage = Stage::Index(index);
            return Verdict::Again;
        }
        self.try_front(site, 403)
    }

    fn try_front(&mut self, site: &Site, status: u16) -> Verdict {
        if site.front_controller {
            self.stage = Stage::Front;
            return Verdict::Again;
        }
        Verdict::Refuse(status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::Config;

    const META: Meta = Meta { size_bytes: 7, modified_unix_seconds: 9 };

    /// Runs a lookup over a tree in which `files` and `directories` exist.
    fn look(config: &Config, target: &str, files: &[&str], directories: &[&str]) -> Verdict {
        let path = path::normalise(target.as_bytes()).expect("a good path");
        let sites = Sites::new(config);
        let mut lookup = Lookup::new(sites.find(b""), path);
        for _ in 0..8 {
            let candidate = String::from_utf8(lookup.candidate(&sites)).expect("text");
            let found = if files.contains(&candidate.as_str()) {
                Found::File(META)
            } else if directories.contains(&candidate.as_str()) {
                Found::Directory
            } else {
                Found::Missing
            };
            match lookup.handle(&sites, found) {
                Verdict::Again => {}
                verdict @ (Verdict::Send(_)
                | Verdict::Run(_)
                | Verdict::Redirect(_)
                | Verdict::Refuse(_)) => return verdict,
            }
        }
        panic!("a lookup must end");
    }

    fn run(name: &str, path_info: &str) -> Verdict {
        Verdict::Run(Script { name: name.into(), path_info: path_info.into() })
    }

    #[test]
    fn each_path_has_its_verdict() {
        let config = Config::default();
        let files = [
            "/a.txt",
            "/a.php",
            "/d/index.php",
            "/e/index.html",
            "/f.php/x.txt",
            "/a.php~",
            "/.git/x.php",
            "/.git/index.php",
        ];
        let directories = ["/", "/d", "/e", "/f.php", "/g", "/.git"];
        for (target, expected) in [
            ("/a.txt", Verdict::Send(META)),
            ("/a.txt/", Verdict::Refuse(404)),
            ("/a.php", run("/a.php", "")),
            ("/a.php/x/y", run("/a.php", "/x/y")),
            ("/b.php", Verdict::Refuse(404)),
            ("/a.txt/x.php", Verdict::Refuse(404)),
            ("/a.php~", Verdict::Refuse(404)),
            ("/d/", run("/d/index.php", "")),
            ("/d", Verdict::Redirect(b"/d/".to_vec())),
            ("/e/", Verdict::Send(META)),
            ("/f.php/x.txt", Verdict::Send(META)),
            ("/g/", Verdict::Refuse(403)),
            ("/.git", Verdict::Refuse(404)),
            ("/.git/x.php", Verdict::Refuse(404)),
            ("/.git/", Verdict::Refuse(404)),
            ("/", Verdict::Refuse(403)),
        ] {
            assert_eq!(look(&config, target, &files, &directories), expected, "{target}");
        }
    }

    #[test]
    fn a_coded_file_beside_it_is_preferred_and_itself_found_again_where_there_is_none() {
        let config = Config { gzip_static: true, ..Config::default() };
        let sites = Sites::new(&config);
        let head = "GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip, br\r\n\r\n";
        let mut room = crate::web::request::header_room();
        let head = crate::web::request::parse(head.as_bytes(), &mut room).expect("a good head");
        for (files, expected, coding) in [
            (vec!["/a.css", "/a.css.gz", "/a.css.br"], "/a.css.br", Some(Coding::Brotli)),
            (vec!["/a.css", "/a.css.gz"], "/a.css.gz", Some(Coding::Gzip)),
            (vec!["/a.css"], "/a.css", None),
        ] {
            let mut lookup = Lookup::new(0, b"/a.css".to_vec()).accepting(Accepted::of(&head));
            let verdict = loop {
                let candidate = String::from_utf8(lookup.candidate(&sites)).expect("text");
                let is_there = files.contains(&candidate.as_str());
                let found = if is_there { Found::File(META) } else { Found::Missing };
                match lookup.handle(&sites, found) {
                    Verdict::Again => {}
                    verdict @ (Verdict::Send(_)
                    | Verdict::Run(_)
                    | Verdict::Redirect(_)
                    | Verdict::Refuse(_)) => break verdict,
                }
            };
            assert_eq!(verdict, Verdict::Send(META));
            assert_eq!(lookup.candidate(&sites), expected.as_bytes());
            assert_eq!((lookup.plain(&sites), lookup.coding()), (b"/a.css".to_vec(), coding));
        }
    }

    #[test]
    fn what_visitors_upload_is_never_run() {
        let config = Config { no_execute: vec!["/up".into()], ..Config::default() };
        let files = ["/up/a.php", "/up/index.php", "/up/a.jpg"];
        assert_eq!(look(&config, "/up/a.php", &files, &["/up"]), Verdict::Refuse(403));
        assert_eq!(look(&config, "/up/a.php/x", &files, &["/up"]), Verdict::Refuse(403));
        assert_eq!(look(&config, "/up/", &files, &["/up"]), Verdict::Refuse(403));
        assert_eq!(look(&config, "/up/a.jpg", &files, &["/up"]), Verdict::Send(META));
    }

    #[test]
    fn the_front_controller_gets_what_is_not_there() {
        let config = Config { front_controller: true, ..Config::default() };
        assert_eq!(look(&config, "/blog/1", &["/index.php"], &[]), run("/index.php", ""));
        assert_eq!(look(&config, "/x.php", &["/index.php"], &[]), run("/index.php", ""));
        assert_eq!(look(&config, "/d/", &["/index.php"], &["/d"]), run("/index.php", ""));
        assert_eq!(look(&config, "/blog/1", &[], &[]), Verdict::Refuse(404));
    }
}
