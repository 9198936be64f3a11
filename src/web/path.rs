//! Path: from a request's target to a path below the document root, and where a script ends in it.
//!
//! In: the percent-encoded path. Out: decoded, normalised bytes that begin with `/`; the split into
//! script and PATH_INFO. Must not: decode twice, look at files, trust a dot.
//! Read first: facts/web.md 1.5 ("Path", "Script choice"); RFC 3986, 5.2.4.

/// Decodes once, merges slashes, resolves dot segments. `None` (400) for a bad escape, a NUL, or a
/// `..` above the root. Decoding comes first, so that `%2e%2e%2f` is seen for what it is.
#[must_use]
pub fn normalise(raw: &[u8]) -> Option<Vec<u8>> {
    let decoded = decode(raw)?;
    if decoded.first() != Some(&b'/') || decoded.contains(&0) {
        return None;
    }
    let mut path = Vec::with_capacity(decoded.len() + 16);
    let mut segments = decoded.split(|&byte| byte == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            b"" | b"." => {}
            b".." => {
                let parent = path.iter().rposition(|&byte| byte == b'/')?;
                path.truncate(parent);
            }
            name => {
                path.push(b'/');
                path.extend_from_slice(name);
            }
        }
        if is_last && matches!(segment, b"" | b"." | b"..") {
            path.push(b'/');
        }
    }
    Some(path)
}

fn decode(raw: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter();
    while let Some(&byte) = bytes.next() {
        decoded.push(if byte == b'%' {
            hex(*bytes.next()?)? << 4 | hex(*bytes.next()?)?
        } else {
            byte
        });
    }
    Some(decoded)
}

const fn hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// Escapes a normalised path for a Location header. It never begins with two slashes, since
/// `normalise` merged them, so it cannot name another host.
#[must_use]
pub fn escape(path: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(path.len() + 8);
    for &byte in path {
        if byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(&byte) {
            escaped.push(byte);
        } else {
            escaped.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    escaped
}

/// Where the script ends in a normalised path: behind the first `.php` that ends a segment. Only
/// this exact spelling runs; `is_source` denies the others.
#[must_use]
pub fn script_end(path: &[u8]) -> Option<usize> {
    let suffix = b".php";
    (0..path.len()).find_map(|at| {
        let rest = path.get(at..)?.strip_prefix(suffix)?;
        let has_name = at.checked_sub(1).is_some_and(|before| path.get(before) != Some(&b'/'));
        (has_name && matches!(rest, [] | [b'/', ..])).then_some(at + suffix.len())
    })
}

/// Whether a path may not be shown at all: a segment that begins with a dot (but for the
/// `.well-known` of RFC 8615), or the source of a program.
#[must_use]
pub fn is_hidden(path: &[u8]) -> bool {
    has_dot_segment(path) || is_source(path)
}

/// Whether a segment begins with a dot: neither shown nor run.
#[must_use]
pub fn has_dot_segment(path: &[u8]) -> bool {
    path.split(|&byte| byte == b'/')
        .any(|segment| segment.first() == Some(&b'.') && segment != b".well-known")
}

/// Whether the last segment's name says that it holds source: never sent as a file.
fn is_source(path: &[u8]) -> bool {
    let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    let name = name.to_ascii_lowercase();
    // A name such as a.php.bak or a.php~ is what an editor leaves behind.
    name.windows(4).enumerate().any(|(at, window)| {
        let next = name.get(at + 4);
        window == b".php" && !next.is_some_and(u8::is_ascii_alphabetic)
    }) || [&b".phtml"[..], b".phps", b".phar", b".pht", b".inc", b".inc~"]
        .iter()
        .any(|suffix| name.ends_with(suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(raw: &str) -> Option<String> {
        normalise(raw.as_bytes()).map(|path| String::from_utf8_lossy(&path).into_owned())
    }

    #[test]
    fn normalises_once() {
        for (raw, expected) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a//b/./c/", "/a/b/c/"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/%61%2Fb%20c", "/a/b c"),
            ("/%2561", "/%61"),
            ("//evil.test/", "/evil.test/"),
        ] {
            assert_eq!(text(raw).as_deref(), Some(expected), "{raw}");
        }
    }

    #[test]
    fn refuses_traversal_nul_and_bad_escapes() {
        for raw in [
            "/..",
            "/../x",
            "/a/../../x",
            "/%2e%2e/x",
            "/a/..%2f..%2fx",
            "/%00",
            "/%",
            "/%4",
            "/%zz",
            "x",
            "",
        ] {
            assert_eq!(text(raw), None, "{raw}");
        }
    }

    #[test]
    fn a_script_ends_at_the_first_php_segment() {
        for (path, expected) in [
            ("/a.php", Some(6)),
            ("/a.php/b.php", Some(6)),
            ("/a.phpx/b.php", Some(13)),
            ("/a.PHP", None),
            ("/.php", None),
            ("/a/", None),
            ("/evil.jpg/x.php", Some(15)),
        ] {
            assert_eq!(script_end(path.as_bytes()), expected, "{path}");
        }
    }

    #[test]
    fn sources_and_dot_files_are_hidden() {
        for path in [
            "/.git/config",
            "/a/.env",
            "/a.php",
            "/a.PHP",
            "/a.php~",
            "/a.php.bak",
            "/a.php5",
            "/a.phtml",
            "/a.inc",
        ] {
            assert!(is_hidden(path.as_bytes()), "{path}");
        }
        for path in ["/a.txt", "/.well-known/x", "/php", "/a.phpx", "/a.include"] {
            assert!(!is_hidden(path.as_bytes()), "{path}");
        }
    }

    #[test]
    fn bit_flips_never_panic_and_never_climb() {
        let raw = b"/a%2f../b/%2e/c.php/d?";
        for bit in 0..raw.len() * 8 {
            let mut bytes = raw.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Some(path) = normalise(&bytes) {
                assert!(path.starts_with(b"/") && !path.windows(4).any(|w| w == b"/../"));
                let _ = (script_end(&path), escape(&path), is_hidden(&path));
            }
        }
    }
}
