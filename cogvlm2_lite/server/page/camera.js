"use strict";
// Takes a picture with the camera. Browsers allow this only for pages of this machine and for https;
// elsewhere a file field opens the camera app of a phone.

// Returns a picture file, or null. Calls onTrouble if the camera can't be used.
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
    stream.getTracks().forEach((track) => track.stop()); // turns off the camera's light
    video.srcObject = null;
    dialog.returnValue = "";
  }
}

async function photograph(video) {
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  if (!canvas.width) return null; // there is no frame yet
  canvas.getContext("2d").drawImage(video, 0, 0);
  const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.92));
  return new File([blob], "camera.jpg", { type: "image/jpeg" });
}
