//! Doctor: what is wrong on a host before anything is started there.
//!
//! In: facts of a host, of its firewall and of both databases. Out: findings, each with its
//! evidence and what to do. Must not: look, ask, change.
//! Read first: `host`, `firewall`, `database`: one file for each kind of facts.

pub mod database;
pub mod firewall;
pub mod host;

use std::fmt;

use serde::{Serialize, Serializer};

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

/// What was found, by a name that stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Id {
    KernelTooOld,
    KernelNoLease,
    CapabilityMissing,
    NoSuchDevice,
    NoCarrier,
    NoOwnAddress,
    AddressHeld,
    PortTaken,
    ReplacedStillRuns,
    NameElsewhere,
    PhpUnreachable,
    SecretsReadable,
    Firewalled,
    FirewallUnclear,
    DatabaseUnreachable,
    NoBinaryLog,
    NoLogUpdates,
    NoGtids,
    GtidsMayBreak,
    NoServerId,
    SameServerId,
    BinlogFormat,
    NotDurable,
    ReplicatesAtStart,
    NoReportHost,
    EventScheduler,
    GtidsNotStrict,
    SettingsDiffer,
    VersionsDiffer,
    ClocksDiffer,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub id: Id,
    pub severity: Severity,
    pub what: String,
    /// What was seen, as whatever says it says it.
    pub evidence: String,
    /// What to do.
    pub fix: String,
}

impl Finding {
    pub(crate) fn error(id: Id, what: impl Into<String>) -> Self {
        Self::new(id, Severity::Error, what.into())
    }

    pub(crate) fn warning(id: Id, what: impl Into<String>) -> Self {
        Self::new(id, Severity::Warning, what.into())
    }

    pub(crate) fn note(id: Id, what: impl Into<String>) -> Self {
        Self::new(id, Severity::Note, what.into())
    }

    fn new(id: Id, severity: Severity, what: String) -> Self {
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

impl Id {
    /// `tandem explain` knows it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::KernelTooOld => "kernel-too-old",
            Self::KernelNoLease => "kernel-no-lease",
            Self::CapabilityMissing => "capability-missing",
            Self::NoSuchDevice => "no-such-device",
            Self::NoCarrier => "no-carrier",
            Self::NoOwnAddress => "no-own-address",
            Self::AddressHeld => "address-held",
            Self::PortTaken => "port-taken",
            Self::ReplacedStillRuns => "replaced-still-runs",
            Self::NameElsewhere => "name-elsewhere",
            Self::PhpUnreachable => "php-unreachable",
            Self::SecretsReadable => "secrets-readable",
            Self::Firewalled => "firewalled",
            Self::FirewallUnclear => "firewall-unclear",
            Self::DatabaseUnreachable => "database-unreachable",
            Self::NoBinaryLog => "no-binary-log",
            Self::NoLogUpdates => "no-log-updates",
            Self::NoGtids => "no-gtids",
            Self::GtidsMayBreak => "gtids-may-break",
            Self::NoServerId => "no-server-id",
            Self::SameServerId => "same-server-id",
            Self::BinlogFormat => "binlog-format",
            Self::NotDurable => "not-durable",
            Self::ReplicatesAtStart => "replicates-at-start",
            Self::NoReportHost => "no-report-host",
            Self::EventScheduler => "event-scheduler",
            Self::GtidsNotStrict => "gtids-not-strict",
            Self::SettingsDiffer => "settings-differ",
            Self::VersionsDiffer => "versions-differ",
            Self::ClocksDiffer => "clocks-differ",
        }
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
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
        write!(f, "{severity}: {}: {what}", id.name())?;
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
