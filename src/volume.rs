//! How loud a station plays.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The quietest volume, in dB.
pub const MIN_DB: f64 = -60.0;

/// A volume in hundredths of a dB, [`MIN_DB`] to 0. At 0 a clip sounds as it was sent; any louder, it would be clipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Volume(i16);

/// The text is not a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("give decibels from {} to 0, such as -6: 0 is as loud as it was sent", MIN_DB)]
pub struct VolumeError;

impl Volume {
    /// As loud as the clip was sent.
    pub const FULL: Self = Self(0);
    /// The lowest volume for an emergency: −12 dB, half as loud to the ear as it was sent.
    pub const EMERGENCY_FLOOR: Self = Self(-1_200);

    /// Creates a volume from dB; `None` outside [`MIN_DB`] to 0.
    pub fn from_db(db: f64) -> Option<Self> {
        // The cast is exact: 100 × 60 fits.
        (MIN_DB..=0.0).contains(&db).then_some(Self((db * 100.0).round() as i16))
    }

    /// Returns the volume in dB.
    pub fn db(self) -> f64 {
        f64::from(self.0) / 100.0
    }

    /// Whether it is within its bounds; a volume from elsewhere might not be.
    pub fn is_valid(self) -> bool {
        Self::from_db(self.db()).is_some()
    }

    /// Returns the factor for samples: exactly 1 at [`Volume::FULL`]. With a floor, the volume is no lower than that.
    pub fn gain(self, floor: Option<Self>) -> f32 {
        let volume = floor.map_or(self, |floor| self.max(floor));
        10_f64.powf(volume.db() / 20.0) as f32
    }
}

impl fmt::Display for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} dB", self.db())
    }
}

impl FromStr for Volume {
    type Err = VolumeError;

    /// Reads dB; a typeset minus is accepted too.
    fn from_str(text: &str) -> Result<Self, VolumeError> {
        let db = text.trim().replace('\u{2212}', "-").parse().map_err(|_| VolumeError)?;
        Self::from_db(db).ok_or(VolumeError)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn decibels_are_read_and_held_to_their_bounds() {
        for (text, db) in
            [("0", 0.0), ("-6", -6.0), ("\u{2212}6", -6.0), (" -0.25 ", -0.25), ("-60", -60.0), ("-0", 0.0)]
        {
            assert_eq!(text.parse::<Volume>().unwrap().db(), db, "{text}");
        }
        for text in ["", "6", "0.01", "-60.01", "nan", "-inf", "loud", "-6dB"] {
            let said = text.parse::<Volume>().unwrap_err().to_string();
            assert!(said.contains("from -60 to 0"), "{text}: {said}");
        }
        assert!(Volume(-6_000).is_valid() && !Volume(-6_001).is_valid() && !Volume(1).is_valid());
    }

    #[test]
    fn a_gain_is_a_factor_and_never_below_its_floor() {
        let volume = |db| Volume::from_db(db).unwrap();
        assert_eq!(Volume::FULL.gain(None), 1.0);
        assert!((volume(-20.0).gain(None) - 0.1).abs() < 1e-6);
        assert_eq!(volume(-40.0).gain(Some(volume(-6.0))), volume(-6.0).gain(None));
        assert_eq!(volume(-3.0).gain(Some(volume(-6.0))), volume(-3.0).gain(None));
    }
}
