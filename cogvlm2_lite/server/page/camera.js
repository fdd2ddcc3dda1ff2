"use strict";
// A picture from the camera. Browsers give it to pages of this machine and to https only; elsewhere
// a telephone's own camera is asked through a file field.

// Gives a picture file; null when there was none, after onTrouble was called if there is no camera.
export async function takePicture(dialog, field, onTrouble) {
  const devices = navigator.mediaDevices;
  if (!devices || !devices.getUserMedia) {
    field.click();
    return null;
  }
  let stream;
  try {
    stream = await devices.getUserMedia(
      { video: { facingMode: "environment", width: { ideal: 1920 }, height: { ideal: 1080 } } });
  } catch {
    onTrouble();
    return null;
  }
  const video = dialog.querySelector("video");
  video.srcObject = stream;
  dialog.showModal();
  try {
    await new Promise((done) => { dialog.onclose = done; });
    return dialog.returnValue === "take" ? await photograph(video) : null;
  } finally {
    stream.getTracks().forEach((track) => track.stop()); // its light goes out
    video.srcObject = null;
    dialog.returnValue = "";
  }
}

async function photograph(video) {
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  if (!canvas.width) return null; // no image has come yet
  canvas.getContext("2d").drawImage(video, 0, 0);
  const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.92));
  return new File([blob], "camera.jpg", { type: "image/jpeg" });
}
