//! The part of libheif's C interface that is used here, as of version 1.15 (`libheif/heif.h`); later versions have the same.

use std::ffi::{c_char, c_int, c_void};

pub enum Context {}
pub enum Handle {}
pub enum Image {}

/// `struct heif_error`.
#[repr(C)]
pub struct Error {
    pub code: c_int,
    pub subcode: c_int,
    pub message: *const c_char,
}

/// The beginning of `struct heif_decoding_options`; libheif allocates the whole.
#[repr(C)]
pub struct DecodingOptions {
    pub version: u8,
    pub ignore_transformations: u8,
    pub start_progress: Option<unsafe extern "C" fn()>,
    pub on_progress: Option<unsafe extern "C" fn()>,
    pub end_progress: Option<unsafe extern "C" fn()>,
    pub progress_user_data: *mut c_void,
    pub convert_hdr_to_8bit: u8,
}

pub const COLORSPACE_RGB: c_int = 1;
pub const CHROMA_INTERLEAVED_RGB: c_int = 10;
pub const CHROMA_INTERLEAVED_RGBA: c_int = 11;
pub const CHANNEL_INTERLEAVED: c_int = 10;

unsafe extern "C" {
    /// `struct heif_init_params*`, which may be null. Since 1.13.
    #[cfg(target_os = "linux")]
    pub fn heif_init(parameters: *mut c_void) -> Error;
    pub fn heif_context_alloc() -> *mut Context;
    pub fn heif_context_free(context: *mut Context);
    pub fn heif_context_read_from_memory_without_copy(
        context: *mut Context,
        bytes: *const c_void,
        size: usize,
        options: *const c_void,
    ) -> Error;
    pub fn heif_context_set_maximum_image_size_limit(context: *mut Context, side: c_int);
    pub fn heif_context_set_max_decoding_threads(context: *mut Context, threads: c_int);
    pub fn heif_context_get_primary_image_handle(context: *mut Context, handle: *mut *mut Handle) -> Error;
    pub fn heif_image_handle_release(handle: *const Handle);
    pub fn heif_image_handle_get_width(handle: *const Handle) -> c_int;
    pub fn heif_image_handle_get_height(handle: *const Handle) -> c_int;
    pub fn heif_image_handle_has_alpha_channel(handle: *const Handle) -> c_int;
    pub fn heif_image_handle_is_premultiplied_alpha(handle: *const Handle) -> c_int;
    pub fn heif_decoding_options_alloc() -> *mut DecodingOptions;
    pub fn heif_decoding_options_free(options: *mut DecodingOptions);
    pub fn heif_decode_image(
        handle: *const Handle,
        image: *mut *mut Image,
        colorspace: c_int,
        chroma: c_int,
        options: *const DecodingOptions,
    ) -> Error;
    pub fn heif_image_release(image: *const Image);
    pub fn heif_image_get_primary_width(image: *const Image) -> c_int;
    pub fn heif_image_get_primary_height(image: *const Image) -> c_int;
    pub fn heif_image_get_plane_readonly(
        image: *const Image,
        channel: c_int,
        stride: *mut c_int,
    ) -> *const u8;
}
