// A picture from the camera.

import { h, icon } from './dom.js';

/** Whether this page may ask for a camera: browsers want HTTPS, or the machine itself. */
export const hasCamera = () => Boolean(navigator.mediaDevices?.getUserMedia);

/**
 * Shows what the camera sees until a picture is taken.
 * @returns {Promise<File | null>} null if the person closed it
 */
export async function takePicture() {
  const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'environment', width: { ideal: 1280 } }, audio: false });
  return new Promise((resolve) => {
    const video = h('video', { class: 'camera', autoplay: true, muted: true, playsInline: true, 'aria-label': 'What the camera sees' });
    video.srcObject = stream;
    const take = h('button', { type: 'button', class: 'button primary' }, icon('camera'), 'Take the picture');
    const dialog = h('dialog', { class: 'dialog wide', 'aria-labelledby': 'camera-title' },
      h('h2', { id: 'camera-title' }, 'Camera'), video,
      h('div', { class: 'row end' }, h('button', { type: 'button', class: 'button', onclick: () => end(null) }, 'Cancel'), take));
    const end = (/** @type {File | null} */ file) => {
      stream.getTracks().forEach((track) => track.stop());
      dialog.close();
      dialog.remove();
      resolve(file);
    };
    dialog.addEventListener('cancel', (event) => {
      event.preventDefault();
      end(null);
    });
    take.addEventListener('click', () => {
      if (video.videoWidth === 0) return;
      const canvas = h('canvas', { width: video.videoWidth, height: video.videoHeight });
      canvas.getContext('2d')?.drawImage(video, 0, 0);
      canvas.toBlob((blob) => end(blob && new File([blob], 'camera.jpg', { type: 'image/jpeg' })), 'image/jpeg', 0.92);
    });
    document.body.append(dialog);
    dialog.showModal();
    take.focus();
  });
}
