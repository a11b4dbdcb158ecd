//! The first directory of a TIFF, as Pillow reads it: plain strips by its own rules, everything else by libtiff's.

mod ccitt;
mod chunks;
mod compression;
mod layout;
mod mode;
mod predictor;
mod ycbcr;

use super::ifd::Directory;
use super::metadata::of_directory;
use super::{Decoded, Header, broken, unsupported};
use crate::image::{Format, ImageError, ImageLimits};
use layout::Layout;

/// Numbers of tags.
mod tag {
    pub(super) const WIDTH: u16 = 256;
    pub(super) const HEIGHT: u16 = 257;
    pub(super) const BITS_PER_SAMPLE: u16 = 258;
    pub(super) const COMPRESSION: u16 = 259;
    pub(super) const PHOTOMETRIC: u16 = 262;
    pub(super) const FILL_ORDER: u16 = 266;
    pub(super) const STRIP_OFFSETS: u16 = 273;
    pub(super) const SAMPLES_PER_PIXEL: u16 = 277;
    pub(super) const ROWS_PER_STRIP: u16 = 278;
    pub(super) const STRIP_BYTE_COUNTS: u16 = 279;
    pub(super) const PLANAR_CONFIGURATION: u16 = 284;
    pub(super) const T4_OPTIONS: u16 = 292;
    pub(super) const PREDICTOR: u16 = 317;
    pub(super) const COLOUR_MAP: u16 = 320;
    pub(super) const TILE_WIDTH: u16 = 322;
    pub(super) const TILE_LENGTH: u16 = 323;
    pub(super) const TILE_OFFSETS: u16 = 324;
    pub(super) const TILE_BYTE_COUNTS: u16 = 325;
    pub(super) const EXTRA_SAMPLES: u16 = 338;
    pub(super) const SAMPLE_FORMAT: u16 = 339;
    pub(super) const JPEG_TABLES: u16 = 347;
    pub(super) const YCBCR_COEFFICIENTS: u16 = 529;
    pub(super) const YCBCR_SUBSAMPLING: u16 = 530;
    pub(super) const REFERENCE_BLACK_WHITE: u16 = 532;
    pub(super) const XMP: u16 = 700;
}

pub(super) fn header(bytes: &[u8]) -> Result<Header, ImageError> {
    let directory = directory(bytes)?;
    let (width, height) = layout::size(&directory)?;
    let layout = Layout::parse(&directory)?;
    // The samples as stored, of one strip or tile too, and RGB.
    let pixel_bytes = 2 * layout.sample_bytes_per_pixel() + 3;
    Ok(Header { width, height, pixel_bytes, frames: 1, scans: (0, 0) })
}

pub(super) fn pixels(bytes: &[u8], limits: &ImageLimits) -> Result<Decoded, ImageError> {
    let directory = directory(bytes)?;
    let layout = Layout::parse(&directory)?;
    let rgb = chunks::rgb(bytes, &directory, &layout, limits)?;
    let orientation = of_directory(Some(&directory), directory.data(tag::XMP));
    Ok(Decoded { width: layout.width as u32, height: layout.height as u32, rgb, orientation })
}

fn directory(bytes: &[u8]) -> Result<Directory<'_>, ImageError> {
    Directory::first(bytes).ok_or_else(|| damaged("there is no picture in it"))
}

fn damaged(reason: impl std::fmt::Display) -> ImageError {
    broken(Format::Tiff, reason)
}

fn refused(reason: impl std::fmt::Display) -> ImageError {
    unsupported(Format::Tiff, reason)
}
