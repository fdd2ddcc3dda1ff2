"use strict";
// All texts of the page, in both languages. The server's sentences come with their templates, for translation.

import { CHINESE } from "./messages.js";

// Marks that are as wide as a Chinese letter, and Chinese letters with these marks.
const MARK = "[\\u3001-\\u303f\\uff01-\\uff0f\\uff1a-\\uff20\\uff3b-\\uff40\\uff5b-\\uff65]";
const LETTER = "[\\p{Script=Han}\\u3001-\\u303f\\uff01-\\uff65]";
const MARK_END = new RegExp(`${MARK}$`, "u"), MARK_START = new RegExp(`^${MARK}`, "u");
const CHINESE_END = new RegExp(`${LETTER}$`, "u"), CHINESE_START = new RegExp(`^${LETTER}`, "u");

// Returns a sentence of the server in a language. made: its {template, values}, if the server sent them.
export function sentence(language, text, made) {
  if (language !== "zh" || !made || typeof made.template !== "string") return text;
  const joined = !/\p{L}/u.test(made.template.replace(/\{[^{}]*\}/g, "")); // has other sentences as its values
  const chinese = CHINESE[made.template] || (joined && made.template);
  if (!chinese) return text;
  let whole = "", at = 0;
  for (const found of chinese.matchAll(/\{\{|\}\}|\{(\w+)(?:![rsa])?(?::([^{}]*))?\}/g)) {
    const [source, name, form] = found;
    whole = appended(whole, chinese.slice(at, found.index));
    whole = appended(whole, name ? shownValue(language, made.values[name], form) : source[0]);
    at = found.index + source.length;
  }
  return appended(whole, chinese.slice(at));
}

function shownValue(language, value, form) {
  if (value && value.template !== undefined) return sentence(language, filled(value), value);
  const places = /\.(\d)f$/.exec(form || "");
  return places && typeof value === "number" ? value.toFixed(Number(places[1])) : String(value);
}

// Returns two texts as one, without a single blank between them that stands in Chinese (gui/translation.py).
function appended(left, right) {
  const before = left.replace(/ $/, ""), after = right.replace(/^ /, "");
  const blanks = left.length - before.length + right.length - after.length;
  const chinese = CHINESE_END.test(before) && CHINESE_START.test(after);
  const mark = (MARK_END.test(before) && after) || (before && MARK_START.test(after));
  return blanks === 1 && (chinese || mark) ? before + after : left + right;
}

// Returns a template with its values, in the language of the server.
function filled({ template, values }) {
  return template.replace(/\{(\w+)[^{}]*\}/g, (found, name) => {
    const value = values[name];
    return value && value.template !== undefined ? filled(value) : String(value ?? found);
  });
}

export const TEXT = {
  en: {
    other: "中文", new: "New conversation", send: "Ask", stop: "Stop",
    welcome: "Ask about a picture",
    hint: "Drop a picture here, paste one, or choose one with the button. One picture per conversation.",
    placeholder: "Your question", pick: "Choose a picture", camera: "Take a picture",
    take: "Take the picture", cancel: "Cancel", remove: "Remove the picture",
    noCamera: "The camera can't be used. Check the permission in the browser's address bar.",
    menu: "Conversations", search: "Search conversations", nothing: "Nothing found.",
    delete: "Delete", sure: (name) => `Delete “${name}” and its picture?`, rename: "Rename the conversation",
    save: "Save", ok: "OK", export: "Export the conversation as a Markdown file", key: "This server requires an API key.", wrongKey: "The API key is wrong. Enter the right one.",
    ready: "Ready", loading: "Loading the model …", unloaded: "The next question loads the model", away: "The server can't be reached",
    queue: (n) => `${n} waiting`, model: "Model", answeredBy: (name) => `Model: ${name}.`,
    encode: "Encoding the picture", prefill: "Reading the prompt", decode: "Next token", waiting: "Waiting …",
    stopped: "Stopped.", cut: "The answer was cut off.", copy: "Copy", copied: "Copied",
    again: "Try again", page: "Page", otherPage: "Another page", noPreview: "no preview", code: "code",
    large: "The picture is larger than 96 MiB.", unreadable: "The file can't be read.", notPicture: "This is not a picture file.",
    emptyFile: "The file is empty.",
    dropped: (n) => `The conversation is longer than the model's context; the oldest turns were left out (${n}).`,
    memory: (held, most) => held ? `Memory: ${held} of ${most} planned` : `Memory: ${most} planned`,
    vision: "vision weights", language: "language weights", cache: "key/value cache", work: "activations",
    streamed: (size) => `${size} of weights are streamed for each token.`,
    notStored: "This browser can't store the conversation. Copy what you need before you close the page.",
    blocked: "The conversations are opened when all other tabs of this page are closed or reloaded.",
    newer: "A newer version of this page was opened in another tab. Reload this tab; until then nothing is stored.",
    lostPicture: "The picture of this conversation is not stored any more. Begin a new conversation.",
    elsewhere: "The answer is being written in another tab.", older: "Previous answer", newerAnswer: "Next answer",
    showAll: (n) => `Show all ${n}`, enlarge: "Enlarge the picture",
    broken: "The connection to the server ended before the answer was complete.",
    edit: "Edit the question", olderQuestion: "Previous question", newerQuestion: "Next question",
    continue: "Continue", settings: "Settings", settingsChanged: "Settings (changed)",
    maxTokens: "Maximum length of an answer in tokens", temperature: "Temperature (0: always the most likely token; higher: more varied)",
    topP: "Top p (use the most likely tokens that together reach this probability)",
    seed: "Seed (the same seed repeats an answer)", system: "Instructions for all conversations",
    defaultTokens: "2048 (default)", defaultTemperature: "0 (default)", defaultTopP: "1 (default)",
    defaultSeed: "random (default)", defaultSystem: "none (default)",
    settingsKept: "They are stored in this browser and used for all new answers.", reset: "Reset",
    tokens: (n, s) => `${n} tokens in ${s} s`, reload: "Stopped because the page was closed.",
  },
  zh: {
    other: "English", new: "新对话", send: "提问", stop: "停止",
    welcome: "就一张图片提问",
    hint: "把图片拖到这里、粘贴，或用按钮选择。每个对话一张图片。",
    placeholder: "你的问题", pick: "选择图片", camera: "拍照",
    take: "拍摄", cancel: "取消", remove: "移除图片",
    noCamera: "无法使用相机。请在浏览器地址栏检查权限。",
    menu: "对话列表", search: "搜索对话", nothing: "没有找到。",
    delete: "删除", sure: (name) => `删除“${name}”及其图片？`, rename: "重命名对话",
    save: "保存", ok: "确定", export: "将对话导出为 Markdown 文件", key: "此服务器需要 API 密钥。", wrongKey: "API 密钥错误，请输入正确的密钥。",
    ready: "就绪", loading: "正在加载模型……", unloaded: "下一个问题会加载模型", away: "无法连接服务器",
    queue: (n) => `${n} 个请求在排队`, model: "模型", answeredBy: (name) => `模型：${name}。`,
    encode: "正在编码图片", prefill: "正在读取提示", decode: "下一个词元", waiting: "等待中……",
    stopped: "已停止。", cut: "回答被截断。", copy: "复制", copied: "已复制",
    again: "重试", page: "页码", otherPage: "另一页", noPreview: "无法预览", code: "代码",
    large: "图片超过 96 MiB。", unreadable: "无法读取文件。", notPicture: "这不是图片文件。",
    emptyFile: "文件是空的。",
    dropped: (n) => `对话超出模型的上下文，省略了最早的 ${n} 轮。`,
    memory: (held, most) => held ? `内存：${held} / 计划 ${most}` : `内存：计划 ${most}`,
    vision: "视觉权重", language: "语言权重", cache: "键值缓存", work: "激活值",
    streamed: (size) => `每个词元需载入 ${size} 权重。`,
    notStored: "此浏览器无法保存对话。关闭页面前请复制需要的内容。",
    blocked: "关闭或重新加载此页面的其他标签页后，对话才会打开。",
    newer: "另一个标签页打开了此页面的新版本。请重新加载本标签页，在此之前不会保存任何内容。",
    lostPicture: "此对话的图片已不在浏览器中。请开始新对话。",
    elsewhere: "另一个标签页正在接收回答。", older: "上一个回答", newerAnswer: "下一个回答",
    showAll: (n) => `显示全部 ${n} 个`, enlarge: "放大图片",
    broken: "回答完成之前与服务器的连接已中断。",
    edit: "修改问题", olderQuestion: "上一个问题", newerQuestion: "下一个问题",
    continue: "继续", settings: "设置", settingsChanged: "设置（已修改）",
    maxTokens: "回答的最大长度（词元）", temperature: "温度（0：总是最可能的词元；越高越多样）",
    topP: "Top p（只用累计概率达到此值的最可能词元）", seed: "随机种子（相同的种子得到相同的回答）",
    system: "用于所有对话的指令", defaultTokens: "2048（默认）",
    defaultTemperature: "0（默认）", defaultTopP: "1（默认）",
    defaultSeed: "随机（默认）", defaultSystem: "无（默认）",
    settingsKept: "设置保存在此浏览器中，用于所有新的回答。", reset: "恢复默认",
    tokens: (n, s) => `${n} 个词元，${s} 秒`, reload: "已停止：页面已关闭。",
  },
};
