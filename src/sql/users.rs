//! The users that may log in, by numbers that are never given to another one.
//!
//! In: users of the configuration, what the admin port adds and removes. Out: a user by name or by
//! number. Must not: give the number of a removed user to somebody else: sessions and pooled
//! connections go by it.
//! Read first: facts/sql.md 1.2. A removed user's sessions go on, as in Atlas, so its password is
//! kept for the connections that they still open, and forgotten with the last of them.

use super::User;

/// A user's number, good for as long as anything of the user is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct UserId(pub(super) u32);

/// Where a user came from, for what is written back to the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Written,
    Added,
}

#[derive(Debug, Clone)]
struct Entry {
    id: UserId,
    user: User,
    origin: Origin,
    is_removed: bool,
}

/// All users, those removed with something left of them included. There are few.
#[derive(Debug, Clone, Default)]
pub struct Users {
    entries: Vec<Entry>,
    next: u32,
}

impl Users {
    /// The users of a configuration; the first one of two with the same name is the one.
    #[must_use]
    pub fn new(users: &[User]) -> Self {
        let mut all = Self::default();
        for user in users {
            all.put(user.clone(), Origin::Written);
        }
        all
    }

    /// Who is there, in order.
    pub fn iter(&self) -> impl Iterator<Item = (UserId, &User, Origin)> {
        self.entries
            .iter()
            .filter(|entry| !entry.is_removed)
            .map(|entry| (entry.id, &entry.user, entry.origin))
    }

    /// The user that may log in by this name.
    #[must_use]
    pub fn find(&self, name: &[u8]) -> Option<(UserId, &User)> {
        self.iter()
            .find(|(_, user, _)| user.name.as_bytes() == name)
            .map(|(id, user, _)| (id, user))
    }

    /// The user of this number, also when it was removed.
    #[must_use]
    pub fn get(&self, id: UserId) -> Option<&User> {
        self.entries.iter().find(|entry| entry.id == id).map(|entry| &entry.user)
    }

    /// Whether it was not removed.
    #[must_use]
    pub fn is_present(&self, id: UserId) -> bool {
        self.iter().any(|(it, ..)| it == id)
    }

    /// Whose name stands first: as whom the splitter itself logs in.
    #[must_use]
    pub fn first(&self) -> Option<UserId> {
        self.iter().next().map(|(id, ..)| id)
    }

    /// Lets a user in. `false`: one of that name is there.
    pub fn add(&mut self, user: User) -> bool {
        self.put(user, Origin::Added)
    }

    fn put(&mut self, user: User, origin: Origin) -> bool {
        if self.find(user.name.as_bytes()).is_some() {
            return false;
        }
        let id = UserId(self.next);
        self.next += 1;
        self.entries.push(Entry { id, user, origin, is_removed: false });
        true
    }

    /// Lets a user in no more; its number is still good.
    pub fn remove(&mut self, name: &str) -> Option<UserId> {
        let (id, _) = self.find(name.as_bytes())?;
        let entry = self.entries.iter_mut().find(|entry| entry.id == id)?;
        entry.is_removed = true;
        Some(id)
    }

    /// Forgets the removed ones of whom nothing is left.
    pub fn sweep(&mut self, is_used: impl Fn(UserId) -> bool) {
        self.entries.retain(|entry| !entry.is_removed || is_used(entry.id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Secret;

    fn user(name: &str, password: &str) -> User {
        User { name: name.into(), password: Secret::Text(password.into()) }
    }

    #[test]
    fn a_number_is_never_given_to_another_user() {
        let mut users = Users::new(&[user("a", "1"), user("b", "2")]);
        let first = users.first().expect("there are two");
        assert!(!users.add(user("a", "3")), "it is there");
        assert_eq!(users.remove("a"), Some(first));
        assert_eq!((users.remove("a"), users.find(b"a").map(|it| it.0)), (None, None));
        assert!(users.add(user("a", "3")));
        let (second, again) = users.find(b"a").expect("added");
        assert_ne!(second, first);
        assert_eq!(again.password.reveal(), "3");
        assert_eq!(
            users.get(first).map(|it| it.password.reveal()),
            Some("1"),
            "its sessions go on"
        );
        assert!(!users.is_present(first) && users.is_present(second));
        users.sweep(|id| id == first);
        assert!(users.get(first).is_some(), "something of it is left");
        users.sweep(|_| false);
        assert_eq!((users.get(first).map(|it| &it.name), users.iter().count()), (None, 2));
        assert!(users.add(user("c", "")));
        assert!(users.find(b"c").is_some_and(|(id, _)| id != first && id != second));
    }

    #[test]
    fn users_know_where_they_came_from() {
        let mut users = Users::new(&[user("a", "1"), user("a", "2")]);
        users.add(user("b", "3"));
        let all: Vec<_> = users.iter().map(|(_, user, origin)| (&*user.name, origin)).collect();
        assert_eq!(all, [("a", Origin::Written), ("b", Origin::Added)]);
    }
}
