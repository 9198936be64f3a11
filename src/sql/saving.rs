//! What SAVE CONFIG makes of the configuration's text: the addresses and users as they are by
//! then, everything else, comments and order included, as it was written.
//!
//! In: the text of tandem.toml, the splitter's clients and users. Out: the new text, or why not.
//! Must not: touch a file, or change how a password is written that nobody changed.
//! Read first: facts/sql.md 1.2 (Atlas rewrites four keys and keeps comments); toml_edit's pages.

use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, TableLike, Value};

use super::atlas;
use super::gate::Network;
use super::users::{Origin, Users};

/// What is to stand in the file.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub clients: Vec<Network>,
    /// Name, and Atlas's form of the password where it is not the one that the file has.
    pub users: Vec<(String, Option<String>)>,
}

impl Wanted {
    #[must_use]
    pub fn new(clients: &[Network], users: &Users) -> Self {
        let user = |(_, user, origin): (_, &super::User, _)| {
            let is_added = origin == Origin::Added;
            (user.name.clone(), is_added.then(|| atlas::encrypt(user.password.reveal())))
        };
        Self { clients: clients.to_vec(), users: users.iter().map(user).collect() }
    }

    /// The text with this in it.
    pub fn edit(&self, text: &str) -> Result<String, String> {
        let mut document: DocumentMut = text.parse().map_err(|error| format!("{error}"))?;
        let section = document
            .get_mut("sql")
            .and_then(Item::as_table_like_mut)
            .ok_or("there is no section [sql]")?;
        self.edit_clients(section)?;
        self.edit_users(section)?;
        Ok(document.to_string())
    }

    /// Whether a configuration has these clients and users and no others.
    #[must_use]
    pub fn is_in(&self, config: &super::Config) -> bool {
        self.clients.len() == config.clients.len()
            && self.clients.iter().all(|client| config.clients.contains(client))
            && self.users.len() == config.users.len()
            && self.users.iter().all(|(name, _)| config.users.iter().any(|it| it.name == *name))
    }

    fn edit_clients(&self, section: &mut dyn TableLike) -> Result<(), String> {
        let item = section.entry("clients").or_insert_with(|| Item::Value(Array::new().into()));
        let array = item.as_array_mut().ok_or("sql.clients is not an array")?;
        let parse =
            |value: &Value| Network::try_from(value.as_str().unwrap_or_default().to_owned());
        array.retain(|value| parse(value).is_ok_and(|it| self.clients.contains(&it)));
        let written: Vec<Network> = array.iter().filter_map(|it| parse(it).ok()).collect();
        let mut added: Vec<String> = self
            .clients
            .iter()
            .filter(|client| !written.contains(client))
            .map(ToString::to_string)
            .collect();
        // Both hosts get the same text, in whatever order their operator typed.
        added.sort_unstable();
        array.extend(added);
        if array.is_empty() && self.clients.is_empty() {
            section.remove("clients");
        }
        Ok(())
    }

    fn edit_users(&self, section: &mut dyn TableLike) -> Result<(), String> {
        let item =
            section.entry("user").or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
        if let Some(tables) = item.as_array_of_tables_mut() {
            let mut written = Vec::new();
            tables.retain(|table| self.has(table));
            for table in tables.iter_mut() {
                written.extend(self.settle(table));
            }
            for (name, password) in self.others(&written) {
                let mut table = Table::new();
                fill(&mut table, name, password);
                tables.push(table);
            }
            return Ok(());
        }
        let array = item.as_array_mut().ok_or("sql.user is neither [[sql.user]] nor an array")?;
        let mut written = Vec::new();
        array.retain(|value| value.as_inline_table().is_some_and(|table| self.has(table)));
        for table in array.iter_mut().filter_map(Value::as_inline_table_mut) {
            written.extend(self.settle(table));
        }
        for (name, password) in self.others(&written) {
            let mut table = InlineTable::new();
            fill(&mut table, name, password);
            array.push(table);
        }
        Ok(())
    }

    fn has(&self, table: &dyn TableLike) -> bool {
        name_of(table).is_some_and(|name| self.users.iter().any(|(it, _)| it == name))
    }

    /// Gives a user that stands there the password that it has by now.
    fn settle(&self, table: &mut dyn TableLike) -> Option<String> {
        let name = name_of(table)?.to_owned();
        let changed = self.users.iter().find(|(it, _)| *it == name)?.1.as_ref();
        let written = table.get("password_encrypted").and_then(Item::as_str);
        if let Some(password) = changed.filter(|password| written != Some(password.as_str())) {
            table.remove("password");
            table.insert("password_encrypted", toml_edit::value(password));
        }
        Some(name)
    }

    /// Users that do not stand there, in the order of their names.
    fn others(&self, written: &[String]) -> Vec<(&str, &str)> {
        let mut others: Vec<(&str, &str)> = self
            .users
            .iter()
            .filter(|(name, _)| !written.contains(name))
            .filter_map(|(name, password)| Some((name.as_str(), password.as_deref()?)))
            .collect();
        others.sort_unstable();
        others
    }
}

fn name_of(table: &dyn TableLike) -> Option<&str> {
    table.get("name").and_then(Item::as_str)
}

fn fill(table: &mut dyn TableLike, name: &str, password: &str) {
    table.insert("name", toml_edit::value(name));
    table.insert("password_encrypted", toml_edit::value(password));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::User;
    use crate::units::Secret;

    const TEXT: &str = "# head\n[sql] # here\nlisten = [\"127.0.0.1:1234\"] # kept\n\
        clients = [\n  \"10.0.0.1\", # one\n  \"10.0.0.0/24\",\n]\n\n[[sql.user]] # the first\n\
        name = \"app\"\npassword = { file = \"/etc/tandem/app\" }\n\n# the second\n[[sql.user]]\n\
        name = \"old\"\npassword = \"x\" # clear\n\n[web]\nport = 80\n";

    fn user(name: &str, password: &str) -> User {
        User { name: name.into(), password: Secret::Text(password.into()) }
    }

    fn users() -> Users {
        Users::new(&[user("app", "from the file"), user("old", "x")])
    }

    fn networks(list: &[&str]) -> Vec<Network> {
        list.iter().map(|it| Network::try_from((*it).to_owned()).expect("a network")).collect()
    }

    #[test]
    fn nothing_to_say_changes_nothing() {
        let wanted = Wanted::new(&networks(&["10.0.0.1", "10.0.0.0/24"]), &users());
        assert_eq!(wanted.edit(TEXT).as_deref(), Ok(TEXT));
    }

    #[test]
    fn what_changed_is_written_and_the_rest_stays() {
        let mut users = users();
        users.remove("old");
        users.add(user("zoe", "atlas"));
        users.add(user("bob", "a"));
        users.remove("app");
        users.add(user("app", "mysql"));
        let wanted = Wanted::new(&networks(&["10.0.0.0/24", "10.9.0.0/16"]), &users);
        let text = wanted.edit(TEXT).expect("edits");
        for kept in ["# head", "[sql] # here", "# kept", "[[sql.user]] # the first", "port = 80"] {
            assert!(text.contains(kept), "{kept}: {text}");
        }
        for gone in ["10.0.0.1\"", "name = \"old\"", "/etc/tandem/app"] {
            assert!(!text.contains(gone), "{gone}: {text}");
        }
        let mut at = 0;
        for next in [
            "name = \"app\"\npassword_encrypted = \"TWbz0dlu35U=\"",
            "[[sql.user]]\nname = \"bob\"\npassword_encrypted = \"BqApBYmpr8M=\"",
            "[[sql.user]]\nname = \"zoe\"\npassword_encrypted = \"KsWNCR6qyNk=\"",
        ] {
            at += text[at..].find(next).unwrap_or_else(|| panic!("{next}: {text}"));
        }
        assert!(text.contains("\"10.0.0.0/24\"") && text.contains("\"10.9.0.0/16\""), "{text}");
        assert_eq!(wanted.edit(&text), Ok(text.clone()), "once more changes nothing");
    }

    #[test]
    fn users_and_sections_on_one_line_are_kept_so() {
        let text = "sql = { user = [{ name = \"old\", password = \"x\" }], blocklist = true }\n";
        let mut users = users();
        users.remove("app");
        users.add(user("bob", "a"));
        let wanted = Wanted::new(&networks(&["10.0.0.1"]), &users);
        let edited = wanted.edit(text).expect("edits");
        assert_eq!(edited.lines().count(), 1, "{edited}");
        assert!(edited.contains("{ name = \"old\", password = \"x\" }"), "{edited}");
        assert!(edited.contains("name = \"bob\"") && edited.contains("10.0.0.1"), "{edited}");
        let parsed: toml::Value = toml::from_str(&edited).expect("it is TOML");
        assert_eq!(parsed["sql"]["user"].as_array().map(Vec::len), Some(2));
    }

    #[test]
    fn what_cannot_be_edited_says_why() {
        let wanted = Wanted::new(&[], &users());
        for (text, why) in [
            ("[web]", "no section [sql]"),
            ("sql = 1", "no section [sql]"),
            ("[sql]\nclients = 1", "sql.clients is not an array"),
            ("[sql]\nuser = 1", "sql.user is neither"),
            ("[sql", "TOML parse error"),
        ] {
            let error = wanted.edit(text).expect_err(text);
            assert!(error.contains(why), "{error}");
        }
    }
}
