//! How urgent a page is: which goes first if several are waiting, and which interrupts.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::volume::Volume;

/// How urgent a page is. It is part of what the announcer signs.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, ValueEnum, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Priority {
    /// After everything else, such as music or a reminder
    Low = 0,
    /// In the order in which they come
    #[default]
    Normal = 1,
    /// Before those that wait
    High = 2,
    /// At once: it interrupts what is playing, which is played again afterwards, and is never played very softly
    Emergency = 3,
}

impl Priority {
    /// All priorities, the least urgent first.
    pub const ALL: [Self; 4] = [Self::Low, Self::Normal, Self::High, Self::Emergency];

    /// Decodes the byte of a clip's header.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|it| *it as u8 == byte)
    }

    /// Whether a page of this priority cuts off a page of the other that sounds.
    pub fn interrupts(self, other: Self) -> bool {
        self == Self::Emergency && other != Self::Emergency
    }

    /// The lowest volume that it is played at.
    pub fn floor(self) -> Option<Volume> {
        (self == Self::Emergency).then_some(Volume::EMERGENCY_FLOOR)
    }

    /// The priority in one word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
            Self::Emergency => "emergency",
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn only_an_emergency_interrupts_and_no_other_emergency() {
        for (byte, priority) in (0..).zip(&Priority::ALL) {
            assert_eq!(Priority::from_byte(byte), Some(*priority));
            assert_eq!(priority.to_possible_value().unwrap().get_name(), priority.word());
            assert_eq!(serde_json::to_value(priority).unwrap(), priority.word());
            assert!(!priority.interrupts(Priority::Emergency));
            assert_eq!(priority.interrupts(Priority::High), *priority == Priority::Emergency);
            assert_eq!(priority.floor().is_some(), *priority == Priority::Emergency);
        }
        assert_eq!(Priority::from_byte(4), None);
        assert!(Priority::Low < Priority::Normal && Priority::High < Priority::Emergency);
    }
}
