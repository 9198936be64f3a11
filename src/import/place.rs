//! Places: nginx's locations, redirects and error pages.
//!
//! In: statements of a server. Out: facts of the site, notes. Must not: take a regex for a prefix.
//! Read first: nginx, ngx_http_core_module "location"; README, "For those who come from nginx".

use crate::units::IpCidr;

use super::draft::{Draft, quoted};
use super::front::{Scope, php_port, shared, size};
use super::tree::Statement;

const LOGS: &str = "every request is logged alike";
const PASSES: &str = "tandem is no HTTP proxy: only PHP is passed on, by FastCGI";
const CACHES: &str = "tandem sends ETag and Last-Modified, and no expiry";

pub(super) fn location(draft: &mut Draft, block: &Statement, scope: &Scope, root: Option<&str>) {
    let values = block.values();
    let (mark, path) = match values.as_slice() {
        [mark @ ("=" | "~" | "~*" | "^~"), path] => (*mark, *path),
        [path] => ("", *path),
        [] | [..] => {
            draft.error(&block.origin, "location with a path");
            return;
        }
    };
    let is_regex = mark.starts_with('~');
    if is_regex && path.contains("php") && has(block, "fastcgi_pass") {
        return php(draft, block);
    }
    if is_regex && has(block, "deny") {
        return hidden(draft, block, path);
    }
    if is_regex {
        let why = "locations are prefixes: what the regex is for has to be said of a folder";
        let is_cache = block.inner().iter().all(|it| {
            matches!(it.name(), "expires" | "add_header" | "access_log" | "log_not_found")
        });
        let why = if is_cache { CACHES } else { why };
        draft.left(&block.origin, &block.shown(), why);
        for inner in block.inner() {
            draft.left(&inner.origin, &inner.shown(), why);
        }
        return;
    }
    for statement in block.inner() {
        match statement.name() {
            "try_files" => try_files(draft, statement, scope),
            "return" | "rewrite" | "if" => {
                redirect(draft, statement, scope, (false, Some((mark, path))));
            }
            "deny" | "allow" => access(draft, statement, (block, path), scope),
            "auth_basic" | "auth_basic_user_file" => users(draft, statement, scope, path),
            "client_max_body_size" => {
                if let Some(literal) = size(statement.value()) {
                    let table = scope.below("location", path);
                    draft.set(&table, "prefix", quoted(path), &block.origin);
                    draft.set(&table, "client_max_body_size", literal, &statement.origin);
                }
            }
            "location" => location(draft, statement, scope, root),
            "fastcgi_pass" => php(draft, block),
            "root" | "index" if path == "/" => shared(draft, statement, scope),
            "root" if root == Some(statement.value()) || is_error_page(block, mark) => {}
            "root" | "alias" => draft.left(
                &statement.origin,
                &statement.shown(),
                "a site has one root: put a link (ln -s) into it",
            ),
            name if name.starts_with("fastcgi_") && has(block, "fastcgi_pass") => {}
            _ => other(draft, statement),
        }
    }
}

fn denies_all(block: &Statement) -> bool {
    block.inner().iter().any(|it| it.name() == "deny" && it.value() == "all")
}

fn has(block: &Statement, name: &str) -> bool {
    block.inner().iter().any(|it| it.name() == name)
}

/// Its file is named by `error_page` already.
fn is_error_page(block: &Statement, mark: &str) -> bool {
    mark == "=" && block.inner().iter().all(|it| matches!(it.name(), "root" | "internal"))
}

fn php(draft: &mut Draft, block: &Statement) {
    for statement in block.inner() {
        let at = &statement.origin;
        match statement.name() {
            "fastcgi_pass" => {
                let place = statement.value();
                if place.contains(':') {
                    php_port(draft, statement, place);
                }
            }
            "fastcgi_index"
            | "fastcgi_split_path_info"
            | "try_files"
            | "include"
            | "root"
            | "index" => {}
            "fastcgi_param" => match statement.value() {
                "SCRIPT_FILENAME" | "PATH_INFO" | "SCRIPT_NAME" | "QUERY_STRING"
                | "PATH_TRANSLATED" | "DOCUMENT_ROOT" | "HTTPS" | "HTTP_PROXY" => {}
                _ => draft.left(
                    at,
                    &statement.shown(),
                    "PHP gets the usual parameters: set it in php-fpm's pool, as env[NAME]",
                ),
            },
            "fastcgi_connect_timeout" | "fastcgi_read_timeout" => {
                shared(draft, statement, &Scope::WEB);
            }
            name if name.starts_with("fastcgi_buffer") || name.starts_with("fastcgi_busy") => {
                draft.left(at, &statement.shown(), "answers are passed on as they come");
            }
            "fastcgi_intercept_errors"
            | "fastcgi_send_timeout"
            | "fastcgi_next_upstream"
            | "fastcgi_keep_conn" => {
                draft.left(at, &statement.shown(), "tandem decides this by itself");
            }
            _ => other(draft, statement),
        }
    }
}

/// `location ~ /\.ht { deny all; }`.
fn hidden(draft: &mut Draft, block: &Statement, path: &str) {
    let is_dot = path.trim_start_matches('/').starts_with("\\.")
        || path.trim_start_matches("(^|/)").starts_with("\\.");
    if !is_dot {
        let why = "is not taken over: write its folders into deny, or into no_execute where only \
                   scripts are meant";
        draft.warn(&block.origin, &block.shown(), why);
    }
    for statement in block.inner().iter().filter(|it| it.name() != "deny") {
        other(draft, statement);
    }
}

/// Of a location, or of a whole server, whose path is "/".
pub(super) fn access(
    draft: &mut Draft,
    statement: &Statement,
    (block, path): (&Statement, &str),
    scope: &Scope,
) {
    let (at, who) = (&statement.origin, statement.value());
    let table = scope.below("location", path);
    match (statement.name(), who) {
        // What ends a list of those who are let in; nobody else is.
        ("deny", "all") if has(block, "allow") => {}
        ("allow", _) if !denies_all(block) => {
            draft.left(at, &statement.shown(), "without `deny all` everybody is let in");
        }
        ("deny", "all") if path != "/" => draft.add(scope.table(), "deny", quoted(path), at),
        ("deny", "all") | ("allow", "all") => {
            draft.left(at, &statement.shown(), "`allow` of a location lets nobody else in");
        }
        ("allow", network) => {
            let bits = if network.contains(':') { 128 } else { 32 };
            let full =
                if network.contains('/') { network.into() } else { format!("{network}/{bits}") };
            if full.parse::<IpCidr>().is_err() {
                draft.error(at, "allow with an address, or a network as in 10.0.0.0/8");
                return;
            }
            draft.set(&table, "prefix", quoted(path), at);
            draft.add(&table, "allow", quoted(&full), at);
            if block.name() == "server" {
                let why = "of several locations the longest counts alone: repeat it in each";
                draft.warn(at, &statement.shown(), why);
            }
        }
        (_, _) => draft.warn(
            at,
            &statement.shown(),
            "is not taken over: single clients are not shut out, only `allow` says who gets in",
        ),
    }
}

fn users(draft: &mut Draft, statement: &Statement, scope: &Scope, path: &str) {
    let (at, value) = (&statement.origin, statement.value());
    let table = scope.below("location", path);
    if value == "off" {
        return;
    }
    draft.set(&table, "prefix", quoted(path), at);
    if statement.name() == "auth_basic" {
        draft.set(&table, "auth_basic", quoted(value), at);
        return;
    }
    let absolute = match value.starts_with('/') {
        true => value.to_owned(),
        false => format!("/etc/nginx/{value}"),
    };
    draft.set(&table, "auth_basic_user_file", quoted(&absolute), at);
    draft.warn(
        at,
        &statement.shown(),
        "hashes of `openssl passwd -6` are understood, those of htpasswd ($apr1$) are not",
    );
}

pub(super) fn try_files(draft: &mut Draft, statement: &Statement, scope: &Scope) {
    let last = statement.values().last().copied().unwrap_or_default();
    let file = last.split('?').next().unwrap_or_default();
    let file = file.trim_end_matches("$is_args$args");
    match file {
        "/index.php" => {
            draft.set(scope.table(), "front_controller", "true".into(), &statement.origin);
        }
        // A path that names no file is 404 by itself.
        "=404" | "/404.html" | "$uri/" | "$uri" => {}
        _ => draft.left(
            &statement.origin,
            &statement.shown(),
            "the only fallback is /index.php (front_controller), or 404",
        ),
    }
}

/// `place`: the location that it stands in, with its mark.
pub(super) fn redirect(
    draft: &mut Draft,
    statement: &Statement,
    scope: &Scope,
    (is_tls, place): (bool, Option<(&str, &str)>),
) {
    let at = &statement.origin;
    let values = statement.values();
    let whole = |to: &str| {
        let to = to.to_ascii_lowercase();
        let rest = to.strip_prefix("https://$").unwrap_or_default();
        rest.ends_with("$request_uri") || rest.ends_with("$uri")
    };
    let (from, to, status) = match (statement.name(), values.as_slice()) {
        ("return", [status @ ("301" | "302" | "307" | "308"), to]) => {
            (place.map(|it| it.1), *to, *status)
        }
        ("return", ["403" | "404"]) if place.is_some_and(|it| it.1 != "/") => {
            let path = place.map(|it| it.1).unwrap_or_default();
            draft.add(scope.table(), "deny", quoted(path), at);
            return;
        }
        ("return", _) => {
            let why = "of `return` a redirect with 301, 302, 307 or 308 is taken";
            draft.left(at, &statement.shown(), why);
            return;
        }
        ("rewrite", [from, to, flag @ ("permanent" | "redirect")]) => {
            (Some(*from), *to, if *flag == "permanent" { "301" } else { "302" })
        }
        ("if", _) => {
            let inner = statement.inner();
            let is_https = inner.iter().any(|it| {
                it.name() == "return" && whole(it.values().last().copied().unwrap_or_default())
            });
            if is_https {
                draft.set(scope.table(), "ssl_redirect", "true".into(), at);
                return;
            }
            draft.left(at, &statement.shown(), "there are no conditions");
            for statement in inner {
                draft.left(&statement.origin, &statement.shown(), "stands in a condition");
            }
            return;
        }
        (_, _) => {
            draft.left(
                at,
                &statement.shown(),
                "paths are redirected, not rewritten: see `redirect`",
            );
            return;
        }
    };
    if !is_tls && whole(to) && matches!(from, None | Some("/") | Some("^") | Some("^(.*)$")) {
        draft.set(scope.table(), "ssl_redirect", "true".into(), at);
        return;
    }
    let from = from.unwrap_or("/").trim_start_matches('^').trim_end_matches('$');
    let from = from.trim_end_matches("(.*)");
    // What follows a path that ends with a slash is appended, and the query always.
    let to = to.trim_end_matches("$is_args$args").trim_end_matches("$1");
    let to = match to.strip_suffix("$request_uri") {
        Some(site) if from == "/" => format!("{site}/"),
        _ => to.to_owned(),
    };
    let is_plain = |text: &str| !text.contains(['$', '(', '*', '[', '\\', '|', '?', '+']);
    if !from.starts_with('/') || !is_plain(from) || !is_plain(&to) {
        let why = "a redirect has a path, or a folder with a slash at its end, and no variables";
        draft.left(at, &statement.shown(), why);
        return;
    }
    if place.is_some_and(|(mark, path)| mark != "=" && !path.ends_with('/')) {
        let why = format!("{from:?} is this path alone: write a slash after it for all below");
        draft.warn(at, &statement.shown(), &why);
    }
    let table = scope.below("redirect", from);
    draft.set(&table, "from", quoted(from), at);
    draft.set(&table, "to", quoted(&to), at);
    draft.set(&table, "status", status.to_owned(), at);
}

/// `error_page 500 502 503 504 /50x.html`, which lies below a root.
pub(super) fn error_page(
    draft: &mut Draft,
    statement: &Statement,
    server: &Statement,
    scope: &Scope,
) {
    let at = &statement.origin;
    let values = statement.values();
    let Some((page, statuses)) = values.split_last() else {
        draft.error(at, "error_page with statuses and a page");
        return;
    };
    let own = server
        .inner()
        .iter()
        .find(|it| it.name() == "location" && it.values().last() == Some(page) && has(it, "root"));
    let root = |block: &Statement| {
        let root = block.inner().iter().find(|it| it.name() == "root");
        root.map(|it| it.value().to_owned())
    };
    let root = own.and_then(root).or_else(|| root(server));
    let are_plain =
        statuses.iter().all(|it| it.parse::<u16>().is_ok_and(|it| (400..600).contains(&it)));
    match root.filter(|root| root.starts_with('/') && page.starts_with('/') && are_plain) {
        Some(root) if scope.is_web() => {
            for status in statuses {
                let path = quoted(&format!("{}{page}", root.trim_end_matches('/')));
                draft.add("web.error_page", "", format!("{status} = {path}"), at);
            }
        }
        Some(_) | None => draft.left(
            at,
            &statement.shown(),
            "[web] has error_page with statuses from 400 and files by absolute path",
        ),
    }
}

/// A directive that nothing takes: why.
pub(super) fn other(draft: &mut Draft, statement: &Statement) {
    let why = match statement.name() {
        "proxy_pass" | "uwsgi_pass" | "grpc_pass" | "scgi_pass" | "memcached_pass" => PASSES,
        "log_not_found" | "access_log" | "error_log" | "rewrite_log" => LOGS,
        "expires" | "etag" | "open_file_cache" => CACHES,
        "add_header" | "more_set_headers" => "let the program send headers of its own",
        "sendfile" | "tcp_nopush" | "tcp_nodelay" | "aio" | "directio" | "output_buffers"
        | "postpone_output" => "files go out by sendfile(2) where it pays",
        "server_tokens" => "tandem tells nobody its version",
        "charset" | "types" | "types_hash_max_size" | "default_type" => {
            "types of files are built in"
        }
        "server_names_hash_bucket_size"
        | "server_names_hash_max_size"
        | "variables_hash_max_size" => "tables grow by themselves",
        "autoindex" => "folders are not listed",
        "internal" => "error pages are files that nobody can ask for, if they lie outside the root",
        "map" | "geo" | "split_clients" | "set" => "there are no variables",
        "real_ip_header" | "real_ip_recursive" => "X-Forwarded-For is read, with real_ip_recursive",
        "auth_basic" | "auth_basic_user_file" => "name and password are asked for in a location",
        "ssl_stapling"
        | "ssl_stapling_verify"
        | "ssl_trusted_certificate"
        | "resolver"
        | "resolver_timeout" => "OCSP answers are not stapled",
        "http2" => "HTTP/1.1 is spoken",
        "" => "stands there without a name",
        name if name.starts_with("proxy_") => PASSES,
        name if name.starts_with("gzip_") => "compression is at level 1, for PHP's text",
        name if name.starts_with("ssl_") => "tandem chooses by itself, as of today's practice",
        name if name.starts_with("fastcgi_cache") => "answers of PHP are not cached",
        name if name.starts_with("fastcgi_") => "tandem decides this by itself",
        name if name.starts_with("client_") || name.starts_with("large_client") => {
            "limits of headers and buffers are built in"
        }
        name if name.starts_with("keepalive_") || name.ends_with("_timeout") => {
            "limits of connections are built in"
        }
        _ => "tandem does not know it: see the README whether you need it",
    };
    draft.left(&statement.origin, &statement.shown(), why);
    for inner in statement.inner() {
        draft.left(&inner.origin, &inner.shown(), why);
    }
}
