//! HEIC and AVIF through the system's libheif: the first picture, as pillow-heif gives it. Turning is libheif's work: the
//! orientation in EXIF says the same once more, and is not looked at.

mod boxes;
mod ffi;

use std::ffi::{CStr, c_int};
use std::marker::PhantomData;
use std::ptr::{null, null_mut};

use super::{Decoded, Header, broken, buffer, colour, unsupported};
use crate::image::orientation::Orientation;
use crate::image::{Format, ImageError, ImageLimits};

/// Bytes a pixel: planes of up to two bytes as they are coded and once more turned, RGBA, and the picture.
const PIXEL_BYTES: u64 = 20;

pub(super) fn header(bytes: &[u8], format: Format, limits: &ImageLimits) -> Result<Header, ImageError> {
    // What has to be decoded for it, which may be much more than is shown.
    let pixels = boxes::pixels(bytes).map_err(|reason| broken(format, reason))?;
    if pixels > limits.max_decode_work {
        let limit = limits.max_decode_work;
        let reason = format!("its parts have {pixels} pixels together, and {limit} are allowed");
        return Err(unsupported(format, reason));
    }
    let file = File::open(bytes, format, limits)?;
    let (width, height) = file.size();
    Ok(Header { width, height, pixel_bytes: PIXEL_BYTES, frames: 1, scans: (0, 0) })
}

pub(super) fn pixels(bytes: &[u8], format: Format, limits: &ImageLimits) -> Result<Decoded, ImageError> {
    let file = File::open(bytes, format, limits)?;
    let (width, height) = file.size();
    let (alpha, premultiplied) = file.alpha();
    let image = file.decode(alpha)?;
    if image.size() != (width, height) {
        return Err(broken(format, "it has another size than it says"));
    }
    let size = if alpha { 4 } else { 3 };
    let mut samples = buffer(format, width as usize * height as usize * size)?;
    image.copy(width as usize * size, &mut samples)?;
    let rgb = match (alpha, premultiplied) {
        (false, _) => samples,
        (true, false) => colour::drop_fourth(samples),
        (true, true) => {
            samples.as_chunks::<4>().0.iter().flat_map(|pixel| colour::unmultiply(*pixel)).collect()
        }
    };
    Ok(Decoded { width, height, rgb, orientation: Orientation::Upright })
}

/// A file that is open: its context, and the handle of its first picture.
struct File<'a> {
    context: *mut ffi::Context,
    handle: *mut ffi::Handle,
    format: Format,
    bytes: PhantomData<&'a [u8]>,
}

/// A decoded picture.
struct Image {
    image: *mut ffi::Image,
    format: Format,
}

impl<'a> File<'a> {
    fn open(bytes: &'a [u8], format: Format, limits: &ImageLimits) -> Result<Self, ImageError> {
        // SAFETY: no conditions.
        let context = unsafe { ffi::heif_context_alloc() };
        if context.is_null() {
            return Err(broken(format, "no memory for it"));
        }
        let mut file = Self { context, handle: null_mut(), format, bytes: PhantomData };
        let side = c_int::try_from(limits.max_side).unwrap_or(c_int::MAX);
        // SAFETY: the context was just made, and the bytes live as long as `file`, which frees it.
        let error = unsafe {
            ffi::heif_context_set_maximum_image_size_limit(context, side);
            // The picture is decoded by this thread: others decode others.
            ffi::heif_context_set_max_decoding_threads(context, 0);
            ffi::heif_context_read_from_memory_without_copy(
                context,
                bytes.as_ptr().cast(),
                bytes.len(),
                null(),
            )
        };
        file.check(&error)?;
        // SAFETY: the context has read the file; the handle is released with `file`.
        let error = unsafe { ffi::heif_context_get_primary_image_handle(context, &raw mut file.handle) };
        file.check(&error)?;
        if file.handle.is_null() {
            return Err(broken(format, "there is no picture in it"));
        }
        Ok(file)
    }

    fn check(&self, error: &ffi::Error) -> Result<(), ImageError> {
        if error.code == 0 {
            return Ok(());
        }
        let message = match error.message.is_null() {
            true => "it cannot be read".to_owned(),
            // SAFETY: not null, and libheif's messages are strings that live as long as the context.
            false => unsafe { CStr::from_ptr(error.message) }.to_string_lossy().into_owned(),
        };
        Err(broken(self.format, message))
    }

    /// Width and height as it is shown.
    fn size(&self) -> (u32, u32) {
        // SAFETY: the handle is there from `open` on.
        let (width, height) = unsafe {
            (ffi::heif_image_handle_get_width(self.handle), ffi::heif_image_handle_get_height(self.handle))
        };
        (u32::try_from(width).unwrap_or(0), u32::try_from(height).unwrap_or(0))
    }

    /// Whether there is an alpha channel, and whether colours are multiplied with it.
    fn alpha(&self) -> (bool, bool) {
        // SAFETY: the handle is there from `open` on.
        unsafe {
            (
                ffi::heif_image_handle_has_alpha_channel(self.handle) != 0,
                ffi::heif_image_handle_is_premultiplied_alpha(self.handle) != 0,
            )
        }
    }

    fn decode(&self, alpha: bool) -> Result<Image, ImageError> {
        let chroma = if alpha { ffi::CHROMA_INTERLEAVED_RGBA } else { ffi::CHROMA_INTERLEAVED_RGB };
        let mut image = Image { image: null_mut(), format: self.format };
        // SAFETY: the handle is there from `open` on; the options are freed after their use; the picture is released with
        // `image`.
        let error = unsafe {
            let options = ffi::heif_decoding_options_alloc();
            if let Some(options) = options.as_mut() {
                options.convert_hdr_to_8bit = 1;
            }
            let error = ffi::heif_decode_image(
                self.handle,
                &raw mut image.image,
                ffi::COLORSPACE_RGB,
                chroma,
                options,
            );
            if !options.is_null() {
                ffi::heif_decoding_options_free(options);
            }
            error
        };
        self.check(&error)?;
        if image.image.is_null() { Err(broken(self.format, "there is no picture in it")) } else { Ok(image) }
    }
}

impl Drop for File<'_> {
    fn drop(&mut self) {
        // SAFETY: both were made by `open`, and nothing else frees them.
        unsafe {
            if !self.handle.is_null() {
                ffi::heif_image_handle_release(self.handle);
            }
            ffi::heif_context_free(self.context);
        }
    }
}

impl Image {
    fn size(&self) -> (u32, u32) {
        // SAFETY: `decode` gives no picture that is null.
        let (width, height) = unsafe {
            (ffi::heif_image_get_primary_width(self.image), ffi::heif_image_get_primary_height(self.image))
        };
        (u32::try_from(width).unwrap_or(0), u32::try_from(height).unwrap_or(0))
    }

    /// Copies its lines of `line` bytes.
    fn copy(&self, line: usize, samples: &mut [u8]) -> Result<(), ImageError> {
        let mut stride: c_int = 0;
        // SAFETY: `decode` gives no picture that is null.
        let plane = unsafe {
            ffi::heif_image_get_plane_readonly(self.image, ffi::CHANNEL_INTERLEAVED, &raw mut stride)
        };
        let stride = usize::try_from(stride).ok().filter(|&stride| !plane.is_null() && stride >= line);
        let stride = stride.ok_or_else(|| broken(self.format, "it has no pixels"))?;
        for (y, to) in samples.chunks_exact_mut(line).enumerate() {
            // SAFETY: the plane has as many lines of `stride` bytes as the picture is high, which the caller has compared.
            to.copy_from_slice(unsafe { std::slice::from_raw_parts(plane.add(y * stride), line) });
        }
        Ok(())
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if !self.image.is_null() {
            // SAFETY: made by `decode`, and nothing else releases it.
            unsafe { ffi::heif_image_release(self.image) };
        }
    }
}
