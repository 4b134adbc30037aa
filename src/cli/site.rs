//! An announcer's stations: who can join, who has joined, and how loud they play.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::State;
use super::values::name;
use crate::invite::parse_validity;
use crate::keys::zones::ZONE_DIGITS;
use crate::volume::{Volume, VolumeError};

/// Print the line that lets a station join.
#[derive(Debug, Args)]
pub struct InviteOptions {
    /// Make a new invite; the one before is worth nothing from then on
    #[arg(long)]
    pub new: bool,

    /// How long a new invite is good for, such as 30m, 12h or 7d [default: 24h]
    #[arg(long, value_name = "TIME", requires = "new", value_parser = parse_validity)]
    pub valid: Option<Duration>,

    /// Where keys are kept.
    #[command(flatten)]
    pub state: State,
}

/// List the stations that have joined.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bullhorn stations
  bullhorn stations volume hall-1 -6       6 dB quieter than it was sent
  bullhorn stations remove hall-1")]
pub struct StationsOptions {
    /// What to do instead of listing them
    #[command(subcommand)]
    pub action: Option<StationsAction>,

    /// Where keys are kept.
    #[command(flatten)]
    pub state: State,
}

/// List the zones, and which digit of the console speaks to each.
#[derive(Debug, Args)]
#[command(after_help = "\
A zone keeps its digit, whatever zones join later: those get the next free one.

Examples:
  bullhorn zones
  bullhorn zones order gym yard \"ground floor\"   1 is the gym, 2 the yard, 3 the ground floor")]
pub struct ZonesOptions {
    /// What to do instead of listing them
    #[command(subcommand)]
    pub action: Option<ZonesAction>,

    /// Where keys are kept.
    #[command(flatten)]
    pub state: State,
}

/// What can be done to zones.
#[derive(Debug, Subcommand)]
pub enum ZonesAction {
    /// Say which zones have the first digits, from 1; the others follow as they did, without those that are gone
    Order {
        /// The zones, at most 9
        #[arg(required = true, num_args = 1..=ZONE_DIGITS, value_name = "ZONE", value_parser = name)]
        zones: Vec<String>,
    },
}

/// What can be done to a station.
#[derive(Debug, Subcommand)]
pub enum StationsAction {
    /// Shut a station out at once and for good; it comes back only with a new invite
    Remove {
        /// The station's name, or its key as `bullhorn stations` shows it
        name: String,
    },
    /// Say how loud a station plays, from its next announcement on
    Volume {
        /// The station's name
        name: String,

        /// In dB: −60 to 0, which is as loud as it was sent; `own` leaves it to the station
        #[arg(value_name = "DB|own", allow_negative_numbers = true, value_parser = volume_or_own)]
        volume: VolumeOrOwn,
    },
}

/// A volume to write in the announcer's list; `None` leaves it to the station.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VolumeOrOwn(pub Option<Volume>);

fn volume_or_own(text: &str) -> Result<VolumeOrOwn, VolumeError> {
    match text {
        "own" => Ok(VolumeOrOwn(None)),
        text => text.parse().map(|volume| VolumeOrOwn(Some(volume))),
    }
}
