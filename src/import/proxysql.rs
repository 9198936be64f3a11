//! ProxySQL: its users, its servers and where it listened become `[sql]`.
//!
//! In: proxysql.cnf, in libconfig's form. Out: facts, addresses, notes.
//! Must not: take rules over (what is a read is decided by the splitter's own grammar).
//! Read first: ProxySQL, "Configuration file"; libconfig, "Configuration Files".

use super::atlas;
use super::draft::{Draft, Origin, Whose, quoted};

/// A setting, the section that it stands in, and how many braces were opened before it.
struct Setting {
    section: String,
    group: usize,
    key: String,
    value: String,
    origin: Origin,
}

pub(super) fn read(draft: &mut Draft, at: &Origin, text: &str) {
    let settings = settings(draft, at, text);
    for setting in &settings {
        match setting.section.as_str() {
            "admin_variables" => admin(draft, setting),
            "mysql_variables" => variable(draft, setting),
            "mysql_servers" => server(draft, setting),
            "mysql_users" => user(draft, setting, &settings),
            "mysql_query_rules" => left(
                draft,
                setting,
                "what is proved to be a read goes to the replica, the rest to the source",
            ),
            "mysql_replication_hostgroups" | "mysql_group_replication_hostgroups" => {
                left(draft, setting, "tandem knows which database is the source: it makes it so");
            }
            "scheduler" => left(draft, setting, "there are no scripts"),
            "" if setting.key == "datadir" || setting.key == "errorlog" => {
                left(draft, setting, "the splitter keeps nothing on disk");
            }
            _ => left(draft, setting, "tandem does not know it"),
        }
    }
}

fn left(draft: &mut Draft, setting: &Setting, why: &str) {
    let Setting { section, key, value, origin, .. } = setting;
    let is_secret = ["pass", "credential"].iter().any(|word| key.contains(word));
    let value: String = if is_secret { "...".into() } else { value.chars().take(60).collect() };
    let place = if section.is_empty() { String::new() } else { format!("{section}: ") };
    draft.left(origin, &format!("{place}{key} = {value}"), why);
}

fn admin(draft: &mut Draft, setting: &Setting) {
    let at = &setting.origin;
    match setting.key.as_str() {
        "admin_credentials" => {
            let first = setting.value.split(';').next().unwrap_or_default();
            match first.split_once(':') {
                Some((name, password)) => {
                    draft.set("sql", "admin_user", quoted(name), at);
                    draft.set("sql", "admin_password", quoted(password), at);
                }
                None => draft.error(at, "admin_credentials with \"NAME:PASSWORD\""),
            }
        }
        "mysql_ifaces" => places(draft, setting, "admin_listen"),
        _ => left(draft, setting, "of ProxySQL's own administration"),
    }
}

fn places(draft: &mut Draft, setting: &Setting, key: &'static str) {
    for place in setting.value.split(';').filter(|it| !it.is_empty()) {
        match place.starts_with('/') {
            true if key == "listen" => {
                draft.set("sql", "listen_socket", quoted(place), &setting.origin);
            }
            true => left(draft, setting, "the admin port is an address and a port"),
            false => atlas::listen(draft, &setting.origin, key, place),
        }
    }
}

fn variable(draft: &mut Draft, setting: &Setting) {
    let (at, value) = (&setting.origin, setting.value.as_str());
    let number = value.parse::<u32>();
    match (setting.key.as_str(), number) {
        ("interfaces", _) => places(draft, setting, "listen"),
        ("max_connections", Ok(count)) => draft.set("sql", "sessions_max", count.to_string(), at),
        ("wait_timeout", Ok(ms)) if ms > 0 => {
            draft.set("sql", "idle_limit", quoted(&format!("{ms}ms")), at);
        }
        ("connect_timeout_server", Ok(ms)) if ms > 0 => {
            draft.set("sql", "connect_limit", quoted(&format!("{ms}ms")), at);
        }
        ("long_query_time", Ok(ms)) if ms > 0 => {
            draft.set("sql", "slow_limit", quoted(&format!("{ms}ms")), at);
        }
        ("threads" | "stacksize", _) => {
            left(draft, setting, "tandem has one loop and needs no more")
        }
        (key, _) if key.starts_with("monitor_") => {
            left(draft, setting, "the databases are looked at by repl.user");
        }
        (_, _) => left(draft, setting, "the splitter decides this by itself"),
    }
}

fn server(draft: &mut Draft, setting: &Setting) {
    let (at, value) = (&setting.origin, setting.value.as_str());
    match setting.key.as_str() {
        "address" | "hostname" => draft.see(Whose::Named(String::new()), value, None, at),
        "port" if value.parse::<u16>().is_ok_and(|port| port > 0) => {
            draft.set("repl", "port", value.to_owned(), at);
        }
        "hostgroup" | "hostgroup_id" => {
            left(draft, setting, "which database takes writes is decided by their roles");
        }
        "max_replication_lag" if value.parse::<u32>().is_ok_and(|seconds| seconds > 0) => {
            draft.set("sql", "lag_limit", quoted(&format!("{value}s")), at);
        }
        _ => left(draft, setting, "of two databases one is the source, one reads"),
    }
}

fn user(draft: &mut Draft, setting: &Setting, all: &[Setting]) {
    let same = |it: &&Setting| it.group == setting.group && it.key == "username";
    let Some(name) = all.iter().find(same).map(|it| it.value.clone()) else {
        draft.error(&setting.origin, "a username beside it");
        return;
    };
    let table = format!("sql.user/{name}");
    match setting.key.as_str() {
        "username" => {
            draft.set(&table, "name", quoted(&name), &setting.origin);
        }
        "password" if setting.value.starts_with('*') && setting.value.len() == 41 => {
            draft.left(
                &setting.origin,
                &format!("password of {name}"),
                "it is a hash: write the password itself, or a file that has it",
            );
        }
        "password" => draft.set(&table, "password", quoted(&setting.value), &setting.origin),
        "default_hostgroup" | "active" => {
            left(draft, setting, "reads go to the replica, the rest to the source");
        }
        _ => left(draft, setting, "users have a name and a password"),
    }
}

/// Nobody nests deeper.
const DEPTH_MAX: usize = 32;

fn settings(draft: &mut Draft, at: &Origin, text: &str) -> Vec<Setting> {
    let (mut found, mut open) = (Vec::new(), Vec::new());
    let (mut section, mut group, mut key) = (String::new(), 0, None::<(String, usize)>);
    let mut is_value = false;
    for (word, line) in tokens(draft, at, text) {
        let is_text = word.starts_with('"');
        match (word.as_str(), is_text) {
            ("{" | "(" | "[", _) => {
                if let (Some((name, _)), true) = (key.take(), open.is_empty()) {
                    section = name;
                }
                group += 1;
                is_value = false;
                open.push((word, line));
                if open.len() > DEPTH_MAX {
                    draft.error(&at.at(line), "no more than 32 levels");
                    return found;
                }
            }
            ("}" | ")" | "]", _) => {
                let wanted = match word.as_str() {
                    "}" => "{",
                    ")" => "(",
                    _ => "[",
                };
                if open.pop().is_none_or(|(opened, _)| opened != wanted) {
                    draft.error(&at.at(line), &format!("no {word} here: no {wanted} is open"));
                    return found;
                }
                if open.is_empty() {
                    section.clear();
                }
            }
            ("=" | ":", _) => is_value = key.is_some(),
            ("," | ";", _) => (key, is_value) = (None, false),
            (_, _) if is_value => {
                if let Some((key, line)) = key.take() {
                    let value = word.trim_start_matches('"').to_owned();
                    let (section, origin) = (section.clone(), at.at(line));
                    found.push(Setting { section, group, key, value, origin });
                }
                is_value = false;
            }
            (_, false) => key = Some((word, line)),
            (_, true) => draft.error(&at.at(line), "a name and = before the text"),
        }
    }
    if let Some((opened, line)) = open.pop() {
        draft.error(&at.at(line), &format!("what closes the {opened} here"));
    }
    found
}

/// Words; a text in quotes keeps its first one.
fn tokens(draft: &mut Draft, at: &Origin, text: &str) -> Vec<(String, usize)> {
    let (mut found, mut line) = (Vec::new(), 1);
    let mut chars = text.chars().peekable();
    while let Some(letter) = chars.next() {
        match letter {
            '\n' => line += 1,
            '#' => while chars.next_if(|next| *next != '\n').is_some() {},
            '/' if chars.peek() == Some(&'/') => {
                while chars.next_if(|next| *next != '\n').is_some() {}
            }
            '/' if chars.peek() == Some(&'*') => {
                let mut last = ' ';
                for next in chars.by_ref() {
                    line += usize::from(next == '\n');
                    if last == '*' && next == '/' {
                        break;
                    }
                    last = next;
                }
            }
            '"' => {
                let (start, mut word, mut is_closed) = (line, String::from('"'), false);
                while let Some(next) = chars.next() {
                    match next {
                        '"' => {
                            is_closed = true;
                            break;
                        }
                        '\\' => word.extend(chars.next()),
                        _ => {
                            line += usize::from(next == '\n');
                            word.push(next);
                        }
                    }
                }
                if !is_closed {
                    draft.error(&at.at(start), "\" that ends the text that begins here");
                }
                found.push((word, start));
            }
            '{' | '}' | '(' | ')' | '[' | ']' | '=' | ':' | ',' | ';' => {
                found.push((letter.into(), line));
            }
            _ if letter.is_whitespace() => {}
            _ => {
                let mut word = String::from(letter);
                while let Some(next) =
                    chars.next_if(|it| !it.is_whitespace() && !"{}()[]=:,;\"".contains(*it))
                {
                    word.push(next);
                }
                found.push((word, line));
            }
        }
    }
    found
}
