//! libheif: a file in memory to the RGB of its first picture.

use std::ffi::{CStr, c_int};
use std::marker::PhantomData;
use std::ptr::{null, null_mut};

use super::Rgb;
use super::ffi;
use crate::image::decode::colour;

/// The first picture of a file, or what is wrong with it. No side may be longer than `max_side`.
pub(super) fn decode(bytes: &[u8], max_side: u32) -> Result<Rgb, String> {
    let file = File::open(bytes, max_side)?;
    let (width, height) = file.size();
    let (alpha, premultiplied) = file.alpha();
    let image = file.decode(alpha)?;
    if image.size() != (width, height) || width.max(height) > max_side {
        return Err("it has another size than it says".to_owned());
    }
    let size = if alpha { 4 } else { 3 };
    let count = width as usize * height as usize * size;
    let mut samples = Vec::new();
    samples.try_reserve_exact(count).map_err(|_| format!("no memory for {count} bytes"))?;
    samples.resize(count, 0);
    image.copy(width as usize * size, &mut samples)?;
    let pixels = match (alpha, premultiplied) {
        (false, _) => samples,
        (true, false) => colour::drop_fourth(samples),
        (true, true) => {
            samples.as_chunks::<4>().0.iter().flat_map(|pixel| colour::unmultiply(*pixel)).collect()
        }
    };
    Ok(Rgb { width, height, pixels })
}

/// Loads the decoders that libheif has as plugins, which may be files: later ones cannot be opened.
#[cfg(target_os = "linux")]
pub(super) fn load_plugins() {
    // SAFETY: null asks for the defaults. Without decoders, decoding gives an error.
    let _ = unsafe { ffi::heif_init(null_mut()) };
}

/// A file that is open: its context, and the handle of its first picture.
struct File<'a> {
    context: *mut ffi::Context,
    handle: *mut ffi::Handle,
    bytes: PhantomData<&'a [u8]>,
}

/// A decoded picture.
struct Image {
    image: *mut ffi::Image,
}

impl<'a> File<'a> {
    fn open(bytes: &'a [u8], max_side: u32) -> Result<Self, String> {
        // SAFETY: no conditions.
        let context = unsafe { ffi::heif_context_alloc() };
        if context.is_null() {
            return Err("no memory for it".to_owned());
        }
        let mut file = Self { context, handle: null_mut(), bytes: PhantomData };
        let side = c_int::try_from(max_side).unwrap_or(c_int::MAX);
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
            return Err("there is no picture in it".to_owned());
        }
        Ok(file)
    }

    fn check(&self, error: &ffi::Error) -> Result<(), String> {
        if error.code == 0 {
            return Ok(());
        }
        let message = match error.message.is_null() {
            true => "it cannot be read".to_owned(),
            // SAFETY: not null, and libheif's messages are strings that live as long as the context.
            false => unsafe { CStr::from_ptr(error.message) }.to_string_lossy().into_owned(),
        };
        Err(message)
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

    fn decode(&self, alpha: bool) -> Result<Image, String> {
        let chroma = if alpha { ffi::CHROMA_INTERLEAVED_RGBA } else { ffi::CHROMA_INTERLEAVED_RGB };
        let mut image = Image { image: null_mut() };
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
        if image.image.is_null() { Err("there is no picture in it".to_owned()) } else { Ok(image) }
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
    fn copy(&self, line: usize, samples: &mut [u8]) -> Result<(), String> {
        let mut stride: c_int = 0;
        // SAFETY: `decode` gives no picture that is null.
        let plane = unsafe {
            ffi::heif_image_get_plane_readonly(self.image, ffi::CHANNEL_INTERLEAVED, &raw mut stride)
        };
        let stride = usize::try_from(stride).ok().filter(|&stride| !plane.is_null() && stride >= line);
        let stride = stride.ok_or_else(|| "it has no pixels".to_owned())?;
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
