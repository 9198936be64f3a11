//! Doctor: what is wrong on a host before anything is started there.
//!
//! In: facts of a host, of its firewall and of both databases. Out: findings, each with its
//! evidence and what to do. Must not: look, ask, change.
//! Read first: `host`, `firewall`, `database`: one file for each kind of facts.

pub mod database;
pub mod firewall;
pub mod host;

use std::fmt;

use serde::Serialize;

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Note,
    /// The pair works, and something is lost when it matters.
    Warning,
    /// The pair does not work like this.
    Error,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// A name that stays.
    pub id: &'static str,
    pub severity: Severity,
    pub what: String,
    /// What was seen, as whatever says it says it.
    pub evidence: String,
    /// What to do.
    pub fix: String,
}

impl Finding {
    pub(crate) fn error(id: &'static str, what: impl Into<String>) -> Self {
        Self::new(id, Severity::Error, what.into())
    }

    pub(crate) fn warning(id: &'static str, what: impl Into<String>) -> Self {
        Self::new(id, Severity::Warning, what.into())
    }

    pub(crate) fn note(id: &'static str, what: impl Into<String>) -> Self {
        Self::new(id, Severity::Note, what.into())
    }

    fn new(id: &'static str, severity: Severity, what: String) -> Self {
        Self { id, severity, what, evidence: String::new(), fix: String::new() }
    }

    #[must_use]
    pub(crate) fn seen(self, evidence: impl Into<String>) -> Self {
        Self { evidence: evidence.into(), ..self }
    }

    #[must_use]
    pub(crate) fn fix(self, fix: impl Into<String>) -> Self {
        Self { fix: fix.into(), ..self }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, severity, what, evidence, fix } = self;
        write!(f, "{severity}: {id}: {what}")?;
        for (name, text) in [("seen", evidence), ("do", fix)] {
            if !text.is_empty() {
                write!(f, "\n    {name}: {text}")?;
            }
        }
        Ok(())
    }
}

/// The worst first; what is equally bad in the order of its finding.
pub fn sort(findings: &mut [Finding]) {
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
}

/// What a command ends with: 0 nothing but notes, 1 warnings, 2 errors.
#[must_use]
pub fn exit_code(findings: &[Finding]) -> u8 {
    match findings.iter().map(|finding| finding.severity).max() {
        None | Some(Severity::Note) => 0,
        Some(Severity::Warning) => 1,
        Some(Severity::Error) => 2,
    }
}
