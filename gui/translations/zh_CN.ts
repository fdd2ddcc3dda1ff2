<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE TS>
<TS version="2.1" language="zh_CN">
<context>
    <name>About</name>
    <message>
        <source>About</source>
        <translation>关于</translation>
    </message>
    <message>
        <source>CogVLM2 Lite {version}. This program and its demo model are under the Apache License 2.0. Weights of CogVLM2 are under the CogVLM2 License and the Meta Llama 3 Community License. Qt is used under the LGPL. Nothing leaves this computer: no updates are looked for and nothing is reported.</source>
        <translation>CogVLM2 Lite {version}。本程序及其演示模型采用 Apache 2.0 许可证。CogVLM2 的权重采用 CogVLM2 License 和 Meta Llama 3 Community License。Qt 按 LGPL 使用。没有任何内容离开这台电脑：不检查更新，也不上报任何信息。</translation>
    </message>
    <message>
        <source>Looking at this computer…</source>
        <translation>正在检查这台电脑…</translation>
    </message>
    <message>
        <source>Report about this computer</source>
        <translation>关于这台电脑的报告</translation>
    </message>
    <message>
        <source>Copy the report</source>
        <translation>复制报告</translation>
    </message>
</context>
<context>
    <name>Answering</name>
    <message>
        <source>Memory is short: up to {size} of weights come from RAM or disk.</source>
        <translation>显存不足：最多 {size} 的权重来自内存或硬盘。</translation>
    </message>
    <message>
        <source>The oldest {count} questions no longer fit and were left out.</source>
        <translation>最早的 {count} 个问题放不下，已省略。</translation>
    </message>
</context>
<context>
    <name>App</name>
    <message>
        <source>CogVLM2 Lite is open already. Use its window; two windows would write the same conversations.</source>
        <translation>CogVLM2 Lite 已经打开。请使用已有的窗口；两个窗口会写入相同的对话。</translation>
    </message>
</context>
<context>
    <name>Banner</name>
    <message>
        <source>Start again</source>
        <translation>重新启动</translation>
    </message>
    <message>
        <source>Start the engine again</source>
        <translation>重新启动引擎</translation>
    </message>
    <message>
        <source>Close the message</source>
        <translation>关闭消息</translation>
    </message>
</context>
<context>
    <name>Batch</name>
    <message>
        <source>Picture</source>
        <translation>图片</translation>
    </message>
    <message>
        <source>Answer</source>
        <translation>回答</translation>
    </message>
    <message>
        <source>waiting</source>
        <translation>等待中</translation>
    </message>
    <message>
        <source>being asked about…</source>
        <translation>正在提问…</translation>
    </message>
</context>
<context>
    <name>BatchPage</name>
    <message>
        <source>Ask about many pictures</source>
        <translation>对多张图片提问</translation>
    </message>
    <message>
        <source>Progress</source>
        <translation>进度</translation>
    </message>
    <message>
        <source>Every answer is saved as it comes. It can be stopped at any moment: the same start goes on, and leaves out what has an answer.</source>
        <translation>每个回答一出来就保存。可以随时停止：再次以同样的方式开始会接着做，已有回答的图片会跳过。</translation>
    </message>
    <message>
        <source>Cancel</source>
        <translation>取消</translation>
    </message>
    <message>
        <source>Search in names and answers</source>
        <translation>在文件名和回答中搜索</translation>
    </message>
    <message>
        <source>Which pictures are shown</source>
        <translation>显示哪些图片</translation>
    </message>
    <message>
        <source>All pictures</source>
        <translation>全部图片</translation>
    </message>
    <message>
        <source>Answered</source>
        <translation>已回答</translation>
    </message>
    <message>
        <source>Failed</source>
        <translation>失败</translation>
    </message>
    <message>
        <source>Waiting</source>
        <translation>等待中</translation>
    </message>
    <message>
        <source>Pictures and answers</source>
        <translation>图片和回答</translation>
    </message>
    <message>
        <source>A batch is under way. Wait for its end, or cancel it first.</source>
        <translation>批处理正在进行。请等它结束，或先取消。</translation>
    </message>
    <message>
        <source>Choose a folder and write a question first.</source>
        <translation>请先选择文件夹并写下问题。</translation>
    </message>
    <message>
        <source>Open a model first, on the page Chat.</source>
        <translation>请先在“聊天”页打开一个模型。</translation>
    </message>
    <message>
        <source>An answer is still coming in the chat. Stop it first.</source>
        <translation>聊天中还有回答正在生成。请先停止它。</translation>
    </message>
    <message>
        <source>A temporary file can&apos;t be written: {why}.</source>
        <translation>无法写入临时文件：{why}。</translation>
    </message>
    <message>
        <source>The command ended without saying why.</source>
        <translation>命令结束了，但没有说明原因。</translation>
    </message>
    <message>
        <source>Go on</source>
        <translation>继续</translation>
    </message>
    <message>
        <source>Start</source>
        <translation>开始</translation>
    </message>
    <message>
        <source>Pause</source>
        <translation>暂停</translation>
    </message>
    <message>
        <source>Looking at the folder…</source>
        <translation>正在查看文件夹…</translation>
    </message>
    <message>
        <source>Loading the model…</source>
        <translation>正在加载模型…</translation>
    </message>
    <message>
        <source>It pauses after this picture.</source>
        <translation>处理完这张图片后暂停。</translation>
    </message>
    <message>
        <source>Paused; the model stays in memory.</source>
        <translation>已暂停；模型仍在内存中。</translation>
    </message>
    <message>
        <source>Stopping…</source>
        <translation>正在停止…</translation>
    </message>
    <message>
        <source>Answers: {folder}</source>
        <translation>回答保存在：{folder}</translation>
    </message>
    <message>
        <source>{time} left.</source>
        <translation>还需 {time}。</translation>
    </message>
    <message>
        <source>{done} of {total} pictures</source>
        <translation>已完成 {done} / {total} 张图片</translation>
    </message>
    <message>
        <source>{count} of them answered before</source>
        <translation>其中 {count} 张之前已回答</translation>
    </message>
    <message>
        <source>{count} failed</source>
        <translation>{count} 张失败</translation>
    </message>
    <message>
        <source>Export what is shown</source>
        <translation>导出所显示的</translation>
    </message>
    <message>
        <source>Export…</source>
        <translation>导出…</translation>
    </message>
    <message>
        <source>{counts}.</source>
        <translation>{counts}。</translation>
    </message>
    <message>
        <source>, </source>
        <translation>，</translation>
    </message>
    <message>
        <source>{count} rows were written to {file}.</source>
        <translation>已将 {count} 行写入 {file}。</translation>
    </message>
    <message>
        <source>Ask more about this picture</source>
        <translation>继续询问这张图片</translation>
    </message>
    <message>
        <source>Copy the answer</source>
        <translation>复制回答</translation>
    </message>
</context>
<context>
    <name>ChatPage</name>
    <message>
        <source>Looking at the pictures…</source>
        <translation>正在查看图片…</translation>
    </message>
    <message>
        <source>Open a model folder</source>
        <translation>打开模型文件夹</translation>
    </message>
    <message>
        <source>The model is unloaded.</source>
        <translation>模型已卸载。</translation>
    </message>
</context>
<context>
    <name>CodeBlock</name>
    <message>
        <source>Copy</source>
        <translation>复制</translation>
    </message>
    <message>
        <source>Copy the code</source>
        <translation>复制代码</translation>
    </message>
    <message>
        <source>Code</source>
        <translation>代码</translation>
    </message>
</context>
<context>
    <name>Composer</name>
    <message>
        <source>Ask about the picture</source>
        <translation>就图片提问</translation>
    </message>
    <message>
        <source>Your question</source>
        <translation>你的问题</translation>
    </message>
    <message>
        <source>What the engine does</source>
        <translation>引擎状态</translation>
    </message>
    <message>
        <source>Progress</source>
        <translation>进度</translation>
    </message>
    <message>
        <source>Ready</source>
        <translation>就绪</translation>
    </message>
    <message>
        <source>Loading the model…</source>
        <translation>正在加载模型…</translation>
    </message>
    <message>
        <source>The model is unloaded.</source>
        <translation>模型已卸载。</translation>
    </message>
    <message>
        <source>The engine has ended.</source>
        <translation>引擎已结束。</translation>
    </message>
    <message>
        <source>No model is open.</source>
        <translation>没有打开的模型。</translation>
    </message>
    <message>
        <source>Loading</source>
        <translation>正在加载</translation>
    </message>
    <message>
        <source>Looking at the picture</source>
        <translation>正在看图片</translation>
    </message>
    <message>
        <source>Reading the question</source>
        <translation>正在读问题</translation>
    </message>
    <message>
        <source>Answering</source>
        <translation>正在回答</translation>
    </message>
    <message>
        <source>Stop (Esc)</source>
        <translation>停止 (Esc)</translation>
    </message>
    <message>
        <source>Send (Enter)</source>
        <translation>发送 (Enter)</translation>
    </message>
</context>
<context>
    <name>Convert</name>
    <message>
        <source>Convert a checkpoint</source>
        <translation>转换权重</translation>
    </message>
    <message>
        <source>Makes a downloaded CogVLM2 checkpoint (39 GB) a 4-bit model (11 GB). The source is only read. It can be stopped at any moment and goes on where it was.</source>
        <translation>把下载的 CogVLM2 权重 (39 GB) 转换为 4 位模型 (11 GB)。源文件只会被读取。可随时停止，之后从原处继续。</translation>
    </message>
    <message>
        <source>Checkpoint folder</source>
        <translation>权重文件夹</translation>
    </message>
    <message>
        <source>Choose the checkpoint</source>
        <translation>选择权重</translation>
    </message>
    <message>
        <source>New folder</source>
        <translation>新文件夹</translation>
    </message>
    <message>
        <source>Choose where it goes</source>
        <translation>选择保存位置</translation>
    </message>
    <message>
        <source>Calibration</source>
        <translation>校准</translation>
    </message>
    <message>
        <source>None: quick, round to nearest</source>
        <translation>无：快速，就近舍入</translation>
    </message>
    <message>
        <source>Drawn pictures: smaller error, takes long</source>
        <translation>绘制的图片：误差更小，耗时较长</translation>
    </message>
    <message>
        <source>Start</source>
        <translation>开始</translation>
    </message>
    <message>
        <source>Pause</source>
        <translation>暂停</translation>
    </message>
    <message>
        <source>Open the new model</source>
        <translation>打开新模型</translation>
    </message>
    <message>
        <source>Progress</source>
        <translation>进度</translation>
    </message>
    <message>
        <source>Choose both folders first.</source>
        <translation>请先选择两个文件夹。</translation>
    </message>
    <message>
        <source>Reading the checkpoint…</source>
        <translation>正在读取权重…</translation>
    </message>
    <message>
        <source>Paused. What is done is kept; the same start goes on.</source>
        <translation>已暂停。已完成的部分会保留；再次开始会接着做。</translation>
    </message>
    <message>
        <source>{share:.0%} written, {left} left</source>
        <translation>已写入 {share:.0%}，剩余 {left}</translation>
    </message>
    <message>
        <source>Calibrated {done} of {total} blocks, {left} left. Error so far: {ratio:.2f} of round to nearest.</source>
        <translation>已校准 {done}/{total} 个模块，剩余 {left}。目前误差为就近舍入的 {ratio:.2f}。</translation>
    </message>
    <message>
        <source>Measured {done} of {total} blocks on samples held out, {left} left</source>
        <translation>已在保留样本上测量 {done}/{total} 个模块，剩余 {left}</translation>
    </message>
    <message>
        <source>Finished: {folder}, {size}.</source>
        <translation>完成：{folder}，{size}。</translation>
    </message>
    <message>
        <source>{size} will be written, {free} are free there.</source>
        <translation>将写入 {size}，该处空闲 {free}。</translation>
    </message>
    <message>
        <source>The command ended without saying why.</source>
        <translation>命令结束了，但没有说明原因。</translation>
    </message>
    <message>
        <source>Start or go on</source>
        <translation>开始或继续</translation>
    </message>
    <message>
        <source>Choose…</source>
        <translation>选择…</translation>
    </message>
</context>
<context>
    <name>Faults</name>
    <message>
        <source>The disk is full.</source>
        <translation>磁盘已满。</translation>
    </message>
    <message>
        <source>Make room; nothing that was kept is lost.</source>
        <translation>请腾出空间；已保存的内容没有丢失。</translation>
    </message>
    <message>
        <source>The folder of the conversations can&apos;t be written to.</source>
        <translation>无法写入对话所在的文件夹。</translation>
    </message>
    <message>
        <source>Make it writable, or give another folder with --data.</source>
        <translation>请使其可写，或用 --data 指定另一个文件夹。</translation>
    </message>
    <message>
        <source>The file of the conversations can&apos;t be opened.</source>
        <translation>无法打开对话文件。</translation>
    </message>
    <message>
        <source>Make its folder readable and writable, or give another folder with --data.</source>
        <translation>请使其所在文件夹可读写，或用 --data 指定另一个文件夹。</translation>
    </message>
    <message>
        <source>Another program holds the file of the conversations.</source>
        <translation>另一个程序正占用对话文件。</translation>
    </message>
    <message>
        <source>Close it and try again.</source>
        <translation>请关闭它后再试。</translation>
    </message>
    <message>
        <source>The file of the conversations is damaged, or no database.</source>
        <translation>对话文件已损坏，或者不是数据库。</translation>
    </message>
    <message>
        <source>The file of the conversations is damaged.</source>
        <translation>对话文件已损坏。</translation>
    </message>
    <message>
        <source>Move it away to start anew, or put a copy back.</source>
        <translation>请移走它以重新开始，或放回一份备份。</translation>
    </message>
    <message>
        <source>The file of the conversations can&apos;t be read or written.</source>
        <translation>无法读写对话文件。</translation>
    </message>
    <message>
        <source>Check that its disk is connected and has room.</source>
        <translation>请检查其磁盘已连接且有空间。</translation>
    </message>
    <message>
        <source>The conversations can&apos;t be read or written: {why}.</source>
        <translation>无法读写对话：{why}。</translation>
    </message>
    <message>
        <source>This conversation is no longer there.</source>
        <translation>这个对话已不存在。</translation>
    </message>
    <message>
        <source>The picture can&apos;t be kept: {why}.</source>
        <translation>无法保存图片：{why}。</translation>
    </message>
    <message>
        <source>Make room on the disk of {folder}, or make the folder writable.</source>
        <translation>请在 {folder} 所在磁盘腾出空间，或使该文件夹可写。</translation>
    </message>
    <message>
        <source>The picture of this conversation is no longer there.</source>
        <translation>这个对话的图片已不存在。</translation>
    </message>
    <message>
        <source>The picture of this conversation is damaged on disk.</source>
        <translation>这个对话的图片在磁盘上已损坏。</translation>
    </message>
    <message>
        <source>{file} in {folder} is a database of another program.</source>
        <translation>{folder} 中的 {file} 是另一个程序的数据库。</translation>
    </message>
    <message>
        <source>Move it away, or give another folder with --data.</source>
        <translation>请移走它，或用 --data 指定另一个文件夹。</translation>
    </message>
    <message>
        <source>The conversations were written by a newer version (format {theirs}; this version knows {ours}).</source>
        <translation>这些对话由更新的版本写入（格式 {theirs}；本版本支持 {ours}）。</translation>
    </message>
    <message>
        <source>Install the newer version again. Nothing was changed.</source>
        <translation>请重新安装较新的版本。没有任何内容被改动。</translation>
    </message>
    <message>
        <source>The folder of the conversations can&apos;t be used: {why}.</source>
        <translation>无法使用对话所在的文件夹：{why}。</translation>
    </message>
    <message>
        <source>Give another folder with --data.</source>
        <translation>请用 --data 指定另一个文件夹。</translation>
    </message>
    <message>
        <source>{file} can&apos;t be written: {why}.</source>
        <translation>无法写入 {file}：{why}。</translation>
    </message>
    <message>
        <source>Choose another place.</source>
        <translation>请选择其他位置。</translation>
    </message>
    <message>
        <source>The picture can&apos;t be read: its decoder crashed.</source>
        <translation>无法读取图片：解码程序崩溃了。</translation>
    </message>
    <message>
        <source>{file} can&apos;t be read: {why}.</source>
        <translation>无法读取 {file}：{why}。</translation>
    </message>
    <message>
        <source>Choose another file.</source>
        <translation>请选择其他文件。</translation>
    </message>
    <message>
        <source>Check that it still exists and that you may read it.</source>
        <translation>请检查它是否还在，以及您是否有权读取。</translation>
    </message>
    <message>
        <source>The picture</source>
        <translation>这张图片</translation>
    </message>
    <message>
        <source>{file} is a folder, not a picture.</source>
        <translation>{file} 是文件夹，不是图片。</translation>
    </message>
    <message>
        <source>Give one file of it.</source>
        <translation>请选择其中的一个文件。</translation>
    </message>
    <message>
        <source>{file} is not an ordinary file.</source>
        <translation>{file} 不是普通文件。</translation>
    </message>
    <message>
        <source>{file} is empty (0 bytes).</source>
        <translation>{file} 是空文件（0 字节）。</translation>
    </message>
    <message>
        <source>{file} has no pixels ({width} x {height}).</source>
        <translation>{file} 没有像素（{width} x {height}）。</translation>
    </message>
    <message>
        <source>{file} has {count} pixels, more than the {most} million that a picture may have.</source>
        <translation>{file} 有 {count} 像素，超过图片上限 {most} 百万像素。</translation>
    </message>
    <message>
        <source>{file} has {size}, more than the {most} a picture may have.</source>
        <translation>{file} 大小为 {size}，超过图片上限 {most}。</translation>
    </message>
    <message>
        <source>{file} is damaged: it starts like a {kind} picture of {width} x {height} pixels, but the rest can&apos;t be decoded.</source>
        <translation>{file} 已损坏：开头像是 {width} x {height} 像素的 {kind} 图片，但其余部分无法解码。</translation>
    </message>
    <message>
        <source>{file} is damaged: it starts like a {kind} picture, but can&apos;t be decoded.</source>
        <translation>{file} 已损坏：开头像是 {kind} 图片，但无法解码。</translation>
    </message>
    <message>
        <source>{file} is {kind}, which this program does not open.</source>
        <translation>{file} 是{kind}，本程序无法打开。</translation>
    </message>
    <message>
        <source>a HEIC picture</source>
        <translation> HEIC 图片</translation>
    </message>
    <message>
        <source>an AVIF picture</source>
        <translation> AVIF 图片</translation>
    </message>
    <message>
        <source>a video</source>
        <translation>视频</translation>
    </message>
    <message>
        <source>a PDF document</source>
        <translation> PDF 文档</translation>
    </message>
    <message>
        <source>an SVG drawing</source>
        <translation> SVG 图形</translation>
    </message>
    <message>
        <source>a web page</source>
        <translation>网页</translation>
    </message>
    <message>
        <source>a Photoshop file</source>
        <translation> Photoshop 文件</translation>
    </message>
    <message>
        <source>a JPEG XL picture</source>
        <translation> JPEG XL 图片</translation>
    </message>
    <message>
        <source>a JPEG 2000 picture</source>
        <translation> JPEG 2000 图片</translation>
    </message>
    <message>
        <source>a ZIP archive or an office document</source>
        <translation> ZIP 压缩包或办公文档</translation>
    </message>
    <message>
        <source>an icon file</source>
        <translation>图标文件</translation>
    </message>
    <message>
        <source>a PostScript file</source>
        <translation> PostScript 文件</translation>
    </message>
    <message>
        <source>{file} is a text file, not a picture.</source>
        <translation>{file} 是文本文件，不是图片。</translation>
    </message>
    <message>
        <source>{file} is in no known picture format.</source>
        <translation>{file} 不是已知的图片格式。</translation>
    </message>
    <message>
        <source>Save it again as PNG or JPEG with another program.</source>
        <translation>请用其他程序重新存为 PNG 或 JPEG。</translation>
    </message>
    <message>
        <source>Open a JPEG, PNG, WebP, BMP, GIF or TIFF picture.</source>
        <translation>请打开 JPEG、PNG、WebP、BMP、GIF 或 TIFF 图片。</translation>
    </message>
    <message>
        <source>Save it as JPEG or PNG with another program, then open that file.</source>
        <translation>请用其他程序存为 JPEG 或 PNG，再打开那个文件。</translation>
    </message>
    <message>
        <source>Save a smaller copy: the model looks at 1344 by 1344 pixels.</source>
        <translation>请存一份较小的副本：模型只看 1344 x 1344 像素。</translation>
    </message>
    <message>
        <source>Get the file again or save it once more from the program that made it.</source>
        <translation>请重新获取该文件，或从制作它的程序再保存一次。</translation>
    </message>
    <message>
        <source>The engine was stopped.</source>
        <translation>引擎已停止。</translation>
    </message>
    <message>
        <source>It can be started again.</source>
        <translation>可以重新启动它。</translation>
    </message>
    <message>
        <source>The engine&apos;s process ended by itself with exit code {code}.</source>
        <translation>引擎进程自行结束，退出码 {code}。</translation>
    </message>
    <message>
        <source>The engine&apos;s process was killed ({signal}). Most often the system does this when memory runs out.</source>
        <translation>引擎进程被终止（{signal}）。通常是系统在内存耗尽时这样做。</translation>
    </message>
    <message>
        <source>The engine&apos;s process crashed ({signal}).</source>
        <translation>引擎进程崩溃（{signal}）。</translation>
    </message>
    <message>
        <source>The engine has a fault; the log of the program says where.</source>
        <translation>引擎出现故障；程序日志中写明了位置。</translation>
    </message>
    <message>
        <source>Please report it with the log and the output of `cogvlm2-lite doctor`.</source>
        <translation>请附上日志和 `cogvlm2-lite doctor` 的输出报告此问题。</translation>
    </message>
    <message>
        <source>There was not enough memory to go on.</source>
        <translation>内存不足，无法继续。</translation>
    </message>
    <message>
        <source>Close other programs and try again.</source>
        <translation>请关闭其他程序后再试。</translation>
    </message>
    <message>
        <source>Memory ran out. {size} more of the weights now come from RAM or disk for each use; the answer goes on, more slowly.</source>
        <translation>内存用尽。现在每次使用时另有 {size} 权重来自内存或磁盘；回答会继续，但更慢。</translation>
    </message>
    <message>
        <source>Memory ran out, and {size} is the least that would do.</source>
        <translation>内存用尽，而至少需要 {size}。</translation>
    </message>
    <message>
        <source>Close other programs, or plan with a shorter --context.</source>
        <translation>请关闭其他程序，或用较短的 --context。</translation>
    </message>
    <message>
        <source>The context is full: the answer has {count} tokens and can&apos;t go on.</source>
        <translation>上下文已满：回答已有 {count} 个 token，无法继续。</translation>
    </message>
    <message>
        <source>Ask a new question; the oldest turns make room for it.</source>
        <translation>请提一个新问题；最早的几轮会为它让出空间。</translation>
    </message>
    <message>
        <source>The question has {count} tokens and the picture {picture}; the context holds {context}, and an answer needs some of them.</source>
        <translation>问题有 {count} 个 token，图片有 {picture} 个；上下文只容纳 {context} 个，回答也要占一部分。</translation>
    </message>
    <message>
        <source>The question has {count} tokens; the context holds {context}, and an answer needs some of them.</source>
        <translation>问题有 {count} 个 token；上下文只容纳 {context} 个，回答也要占一部分。</translation>
    </message>
    <message>
        <source>Shorten the question.</source>
        <translation>请缩短问题。</translation>
    </message>
    <message>
        <source>Shorten the question, or plan for a longer context: {most} tokens at most.</source>
        <translation>请缩短问题，或使用更长的上下文：最多 {most} 个 token。</translation>
    </message>
    <message>
        <source>{phase} needs at least {least} on {device}, where {size} may be used ({origin}): {missing} are missing.</source>
        <translation>{phase}在 {device} 上至少需要 {least}，可用 {size}（{origin}）：还差 {missing}。</translation>
    </message>
    <message>
        <source>{phase} needs at least {least} on {device}, where {size} may be used: {missing} are missing.</source>
        <translation>{phase}在 {device} 上至少需要 {least}，可用 {size}：还差 {missing}。</translation>
    </message>
    <message>
        <source>{size} given, {left} left for {others}</source>
        <translation>给定 {size}，{left} 留给{others}</translation>
    </message>
    <message>
        <source>{size} free now, {left} left for {others}</source>
        <translation>现有空闲 {size}，{left} 留给{others}</translation>
    </message>
    <message>
        <source>the driver and other programs</source>
        <translation>驱动和其他程序</translation>
    </message>
    <message>
        <source>other programs</source>
        <translation>其他程序</translation>
    </message>
    <message>
        <source>Encode</source>
        <translation>看图</translation>
    </message>
    <message>
        <source>Prefill with picture</source>
        <translation>读入图片和问题</translation>
    </message>
    <message>
        <source>Prefill of text</source>
        <translation>读入文字</translation>
    </message>
    <message>
        <source>Decode</source>
        <translation>生成回答</translation>
    </message>
    <message>
        <source>Close other programs, give a larger budget, or use another device.</source>
        <translation>请关闭其他程序，给更大的预算，或使用其他设备。</translation>
    </message>
    <message>
        <source>A context of {count} tokens would fit: --context {same}.</source>
        <translation>{count} 个 token的上下文放得下：--context {same}。</translation>
    </message>
    <message>
        <source>{folder} has no config.json, so it is not a model folder.</source>
        <translation>{folder} 中没有 config.json，不是模型文件夹。</translation>
    </message>
    <message>
        <source>Give the folder that holds config.json and the .safetensors files.</source>
        <translation>请选择包含 config.json 和 .safetensors 文件的文件夹。</translation>
    </message>
    <message>
        <source>{file} has no vision_config, so this is not a CogVLM2 image model.</source>
        <translation>{file} 中没有 vision_config，这不是 CogVLM2 图像模型。</translation>
    </message>
    <message>
        <source>CogVLM2 Lite runs cogvlm2-llama3-chat-19B and cogvlm2-llama3-chinese-chat-19B.</source>
        <translation>CogVLM2 Lite 运行 cogvlm2-llama3-chat-19B 和 cogvlm2-llama3-chinese-chat-19B。</translation>
    </message>
    <message>
        <source>{file} holds keys this program does not know: {names}.</source>
        <translation>{file} 中有本程序不认识的键：{names}。</translation>
    </message>
    <message>
        <source>They may change the results. Check that this is a CogVLM2 image model.</source>
        <translation>它们可能改变结果。请确认这是 CogVLM2 图像模型。</translation>
    </message>
    <message>
        <source>{folder} is not a folder.</source>
        <translation>{folder} 不是文件夹。</translation>
    </message>
    <message>
        <source>{folder} holds no safetensors weights.</source>
        <translation>{folder} 中没有 safetensors 权重。</translation>
    </message>
    <message>
        <source>{folder} has its weights only as pickle ({files}), which can run any program when it is opened.</source>
        <translation>{folder} 中只有 pickle 格式的权重（{files}），打开它可能会运行任意程序。</translation>
    </message>
    <message>
        <source>Get the safetensors version of the model. CogVLM2 Lite never opens pickle files.</source>
        <translation>请获取模型的 safetensors 版本。CogVLM2 Lite 从不打开 pickle 文件。</translation>
    </message>
    <message>
        <source>{folder} has {files}, but no {index} to say what they hold.</source>
        <translation>{folder} 中有{files}，但没有说明其内容的 {index}。</translation>
    </message>
    <message>
        <source>Copy or download {index} from where the weights came from.</source>
        <translation>请从权重的来源复制或下载 {index}。</translation>
    </message>
    <message>
        <source>The folder lacks {tensors} of {count}.</source>
        <translation>文件夹中应有 {count} 个张量，缺少{tensors}。</translation>
    </message>
    <message>
        <source>The folder has {tensors} that this CogVLM2 model has not.</source>
        <translation>文件夹中有这个 CogVLM2 模型没有的{tensors}。</translation>
    </message>
    <message>
        <source>This is another model, or its config.json does not belong to these weights.</source>
        <translation>这是另一个模型，或者 config.json 与这些权重不匹配。</translation>
    </message>
    <message>
        <source>{folder} lacks {files} of {count}.</source>
        <translation>{folder} 中应有 {count} 个文件，缺少{files}。</translation>
    </message>
    <message>
        <source>Download the folder again, or copy the missing files into it.</source>
        <translation>请重新下载该文件夹，或把缺少的文件复制进去。</translation>
    </message>
    <message>
        <source>This folder was written by another program or for another model.</source>
        <translation>这个文件夹由其他程序写成，或属于另一个模型。</translation>
    </message>
    <message>
        <source>The folder mixes files of two models. Download it again into an empty one.</source>
        <translation>该文件夹混有两个模型的文件。请重新下载到一个空文件夹。</translation>
    </message>
    <message>
        <source>Index and files are of different versions. Download the folder again.</source>
        <translation>索引与文件版本不同。请重新下载该文件夹。</translation>
    </message>
    <message>
        <source>{file}: its {count} tensors end at byte {end}, but the file has {size}.</source>
        <translation>{file}：其中 {count} 个张量止于第 {end} 字节，而文件有 {size} 字节。</translation>
    </message>
    <message>
        <source>{tensor} ends at byte {end}, but the file has only {size}.</source>
        <translation>{tensor} 止于第 {end} 字节，而文件只有 {size} 字节。</translation>
    </message>
    <message>
        <source>{file} has only {size} bytes, too few for a header.</source>
        <translation>{file} 只有 {size} 字节，放不下文件头。</translation>
    </message>
    <message>
        <source>{file} says its header is {length} bytes long, but only {size} follow.</source>
        <translation>{file} 声明文件头有 {length} 字节，但后面只有 {size} 字节。</translation>
    </message>
    <message>
        <source>The file is damaged or was not downloaded completely. Copy or download it again.</source>
        <translation>文件已损坏或没有下载完整。请重新复制或下载。</translation>
    </message>
    <message>
        <source>{folder} has no {file}, so text can&apos;t be turned into tokens.</source>
        <translation>{folder} 中没有 {file}，无法把文字转换为 token。</translation>
    </message>
    <message>
        <source>Copy {file} from the original checkpoint into the folder.</source>
        <translation>请从原始模型中把 {file} 复制到该文件夹。</translation>
    </message>
    <message>
        <source>{count} files ({names})</source>
        <translation> {count} 个文件（{names}）</translation>
    </message>
    <message>
        <source>{count} file ({names})</source>
        <translation> {count} 个文件（{names}）</translation>
    </message>
    <message>
        <source>{count} tensors ({names})</source>
        <translation> {count} 个张量（{names}）</translation>
    </message>
    <message>
        <source>{count} tensor ({names})</source>
        <translation> {count} 个张量（{names}）</translation>
    </message>
    <message>
        <source>{names} and {count} more</source>
        <translation>{names} 以及另外 {count} 个</translation>
    </message>
    <message>
        <source>Stopped.</source>
        <translation>已停止。</translation>
    </message>
    <message>
        <source>What is done is kept in DST.partial: run the same command again to go on.</source>
        <translation>已完成的部分保存在目标旁的 .partial 文件夹中：再次开始即可继续。</translation>
    </message>
    <message>
        <source>There is no folder {folder}.</source>
        <translation>没有文件夹 {folder}。</translation>
    </message>
    <message>
        <source>{folder} is both the source and the destination.</source>
        <translation>{folder} 既是来源又是目标。</translation>
    </message>
    <message>
        <source>Give a new folder for the result; the source is only read.</source>
        <translation>请为结果选择一个新文件夹；来源只会被读取。</translation>
    </message>
    <message>
        <source>{folder} lies inside the source {source}.</source>
        <translation>{folder} 位于来源 {source} 之内。</translation>
    </message>
    <message>
        <source>Give a folder beside it; the source is only read.</source>
        <translation>请选择来源之外的文件夹；来源只会被读取。</translation>
    </message>
    <message>
        <source>{folder} is already quantized ({kinds}).</source>
        <translation>{folder} 已经量化过（{kinds}）。</translation>
    </message>
    <message>
        <source>its config.json says so</source>
        <translation>其 config.json 如此声明</translation>
    </message>
    <message>
        <source>Rounding twice loses quality: start from the released 16-bit checkpoint.</source>
        <translation>重复舍入会损失质量：请从发布的 16 位模型开始。</translation>
    </message>
    <message>
        <source>{folder} exists already and is not empty.</source>
        <translation>{folder} 已存在且不为空。</translation>
    </message>
    <message>
        <source>{folder} exists already and was made {difference}.</source>
        <translation>{folder} 已存在，设置不同：{difference}。</translation>
    </message>
    <message>
        <source>{folder} was started {difference}.</source>
        <translation>{folder} 开始时的设置不同：{difference}。</translation>
    </message>
    <message>
        <source>with {setting}, and now it is {value}</source>
        <translation>原为 {setting}，现为 {value}</translation>
    </message>
    <message>
        <source>from another source ({name} {theirs}, and now {ours})</source>
        <translation>来源不同（{name} 原为 {theirs}，现为 {ours}）</translation>
    </message>
    <message>
        <source>Give a folder that does not exist yet, or delete or rename this one.</source>
        <translation>请选择一个尚不存在的文件夹，或者删除或重命名现有的文件夹。</translation>
    </message>
    <message>
        <source>{folder} exists and is not the work of an earlier quantize ({file} is in it).</source>
        <translation>{folder} 已存在，且不是以前转换留下的（其中有 {file}）。</translation>
    </message>
    <message>
        <source>Move it away, or give another destination.</source>
        <translation>请把它移走，或选择其他目标。</translation>
    </message>
    <message>
        <source>Give the same options as before to continue it, or add --restart to throw it away and start over.</source>
        <translation>请用与之前相同的选项继续，或加上 --restart 丢弃后重新开始。</translation>
    </message>
    <message>
        <source>Another run is writing {folder} at this moment ({why}).</source>
        <translation>另一次转换正在写入 {folder}（{why}）。</translation>
    </message>
    <message>
        <source>Wait until it has ended, or give another destination.</source>
        <translation>请等它结束，或选择其他目标。</translation>
    </message>
    <message>
        <source>{size} are still to be written to {folder}, which has {free} free: {missing} are missing.</source>
        <translation>还要向 {folder} 写入 {size}，那里有 {free} 可用：还差 {missing}。</translation>
    </message>
    <message>
        <source>Free that much, or give a destination on another disk. Nothing was written.</source>
        <translation>请腾出这么多空间，或选择其他磁盘上的目标。尚未写入任何内容。</translation>
    </message>
    <message>
        <source>The disk of {folder} is full ({size} free).</source>
        <translation>{folder} 所在的磁盘已满（可用 {size}）。</translation>
    </message>
    <message>
        <source>Free some space and run the same command again: it goes on where it stopped.</source>
        <translation>请腾出空间后再次开始：会从停下的地方继续。</translation>
    </message>
    <message>
        <source>{folder} can&apos;t be used: {why}.</source>
        <translation>无法使用 {folder}：{why}。</translation>
    </message>
    <message>
        <source>Check rights and disk, or give another destination. What is done is kept.</source>
        <translation>请检查权限和磁盘，或选择其他目标。已完成的部分会保留。</translation>
    </message>
    <message>
        <source>Calibrating needs {size} of scratch in {folder}, and {free} are free there.</source>
        <translation>校准需要在 {folder} 中使用 {size} 临时空间，那里有 {free} 可用。</translation>
    </message>
    <message>
        <source>Free some space, use fewer samples (--samples), or another disk.</source>
        <translation>请腾出空间、减少样本（--samples）或使用其他磁盘。</translation>
    </message>
    <message>
        <source>{name} holds {value} at row {row}, column {column}, so it can&apos;t be rounded.</source>
        <translation>{name} 的第 {row} 行第 {column} 列为 {value}，无法舍入。</translation>
    </message>
    <message>
        <source>The checkpoint is damaged. Copy or download {file} again.</source>
        <translation>模型文件已损坏。请重新复制或下载 {file}。</translation>
    </message>
    <message>
        <source>{file} can&apos;t be read at {tensor}: {why}.</source>
        <translation>读取 {file} 中的 {tensor} 时出错：{why}。</translation>
    </message>
    <message>
        <source>The disk or the network may be failing. Nothing that is done is lost: put a good copy of the file in its place and run the same command again.</source>
        <translation>磁盘或网络可能出了故障。已完成的部分没有丢失：请换上完好的文件后再次开始。</translation>
    </message>
    <message>
        <source>{file} ends in the middle of {tensor}: {count} bytes are missing.</source>
        <translation>{file} 在 {tensor} 中间结束：缺少 {count} 字节。</translation>
    </message>
    <message>
        <source>The file was changed while it was read. Put the whole file back and run the same command again.</source>
        <translation>文件在读取时被更改。请放回完整的文件后再次开始。</translation>
    </message>
    <message>
        <source>{folder} holds no picture ({kinds}).</source>
        <translation>{folder} 中没有图片（{kinds}）。</translation>
    </message>
    <message>
        <source>Add --recursive to look into the folders inside.</source>
        <translation>加上 --recursive 可同时查看其中的子文件夹。</translation>
    </message>
    <message>
        <source>Give the folder of the pictures.</source>
        <translation>请选择图片所在的文件夹。</translation>
    </message>
    <message>
        <source>{file} holds something that batch did not write.</source>
        <translation>{file} 中有并非批量处理写入的内容。</translation>
    </message>
    <message>
        <source>Move it away, or give another folder with --output.</source>
        <translation>请把它移走，或用 --output 指定其他文件夹。</translation>
    </message>
    <message>
        <source>Give another folder with --output.</source>
        <translation>请用 --output 指定其他文件夹。</translation>
    </message>
</context>
<context>
    <name>JobForm</name>
    <message>
        <source>Folder of pictures</source>
        <translation>图片文件夹</translation>
    </message>
    <message>
        <source>Choose the folder of the pictures</source>
        <translation>选择图片所在的文件夹</translation>
    </message>
    <message>
        <source>Question</source>
        <translation>问题</translation>
    </message>
    <message>
        <source>Question about each picture</source>
        <translation>对每张图片的问题</translation>
    </message>
    <message>
        <source>Asked about each picture</source>
        <translation>对每张图片提出</translation>
    </message>
    <message>
        <source>Answers go to</source>
        <translation>回答保存到</translation>
    </message>
    <message>
        <source>Choose the folder of the answers</source>
        <translation>选择保存回答的文件夹</translation>
    </message>
    <message>
        <source>the folder of the pictures</source>
        <translation>图片所在的文件夹</translation>
    </message>
    <message>
        <source>answers.jsonl is always written there: from it a later start goes on.</source>
        <translation>那里始终会写入 answers.jsonl：以后从它接着做。</translation>
    </message>
    <message>
        <source>Only {count} chosen pictures of it.</source>
        <translation>只处理其中选定的 {count} 张图片。</translation>
    </message>
    <message>
        <source>Folders inside too</source>
        <translation>包括子文件夹</translation>
    </message>
    <message>
        <source>A .txt file for each picture</source>
        <translation>每张图片一个 .txt 文件</translation>
    </message>
    <message>
        <source>One CSV table</source>
        <translation>一个 CSV 表格</translation>
    </message>
    <message>
        <source>Take the whole folder</source>
        <translation>处理整个文件夹</translation>
    </message>
    <message>
        <source>Choose…</source>
        <translation>选择…</translation>
    </message>
</context>
<context>
    <name>Keys</name>
    <message>
        <source>Send the question</source>
        <translation>发送问题</translation>
    </message>
    <message>
        <source>Break the line</source>
        <translation>换行</translation>
    </message>
    <message>
        <source>Stop the answer</source>
        <translation>停止回答</translation>
    </message>
    <message>
        <source>New conversation</source>
        <translation>新对话</translation>
    </message>
    <message>
        <source>Open a picture</source>
        <translation>打开图片</translation>
    </message>
    <message>
        <source>Take a part of the screen</source>
        <translation>截取屏幕的一部分</translation>
    </message>
    <message>
        <source>Paste a picture or text</source>
        <translation>粘贴图片或文字</translation>
    </message>
    <message>
        <source>Answer again</source>
        <translation>重新回答</translation>
    </message>
    <message>
        <source>Search in conversations</source>
        <translation>搜索对话</translation>
    </message>
    <message>
        <source>Go to the question</source>
        <translation>转到问题框</translation>
    </message>
    <message>
        <source>Pages of the window</source>
        <translation>窗口的各个页面</translation>
    </message>
    <message>
        <source>Larger and smaller letters</source>
        <translation>放大和缩小文字</translation>
    </message>
    <message>
        <source>Settings</source>
        <translation>设置</translation>
    </message>
    <message>
        <source>This sheet</source>
        <translation>本页</translation>
    </message>
    <message>
        <source>Quit</source>
        <translation>退出</translation>
    </message>
    <message>
        <source>Keys</source>
        <translation>快捷键</translation>
    </message>
</context>
<context>
    <name>MainWindow</name>
    <message>
        <source>Conversations are not kept</source>
        <translation>对话不会被保存</translation>
    </message>
    <message>
        <source>The window works, but forgets when it is closed.</source>
        <translation>窗口可以使用，但关闭后不会保留内容。</translation>
    </message>
    <message>
        <source>The last answers are not on disk</source>
        <translation>最后的回答尚未写入磁盘</translation>
    </message>
    <message>
        <source>They could not be written: the disk may be full, or another program holds the file of the conversations. Close the window and lose them?</source>
        <translation>无法写入：磁盘可能已满，或者另一个程序占用了对话文件。要关闭窗口并丢失它们吗？</translation>
    </message>
    <message>
        <source>Pages</source>
        <translation>页面</translation>
    </message>
</context>
<context>
    <name>Memory</name>
    <message>
        <source>Memory</source>
        <translation>内存</translation>
    </message>
    <message>
        <source>The plan in numbers</source>
        <translation>内存计划的数字</translation>
    </message>
    <message>
        <source>Video memory</source>
        <translation>显存</translation>
    </message>
    <message>
        <source>RAM, without a GPU</source>
        <translation>内存（不用 GPU）</translation>
    </message>
    <message>
        <source>Which memory is planned with</source>
        <translation>按哪种内存计划</translation>
    </message>
    <message>
        <source>How much memory is planned with</source>
        <translation>按多少内存计划</translation>
    </message>
    <message>
        <source>Load with this</source>
        <translation>按此加载</translation>
    </message>
    <message>
        <source>Open the model anew, within this budget</source>
        <translation>在此限度内重新打开模型</translation>
    </message>
    <message>
        <source>A question about a new picture waits about {wait} for its first word; then about {rate} tokens come per second.</source>
        <translation>对新图片的提问约需 {wait} 才出现第一个字；之后每秒约 {rate} 个 token。</translation>
    </message>
    <message>
        <source>CogVLM2 19B in 4 bits</source>
        <translation>CogVLM2 19B(4 位)</translation>
    </message>
    <message>
        <source>{model} does not fit like this.</source>
        <translation>这样放不下 {model}。</translation>
    </message>
    <message>
        <source>The model&apos;s weights and buffers: {now} now, {most} at the most.</source>
        <translation>模型的权重和缓冲区：现在 {now}，最多 {most}。</translation>
    </message>
    <message>
        <source>needs {peak} of {budget} on {device}</source>
        <translation>在 {device} 上需要 {peak}（可用 {budget}）</translation>
    </message>
    <message>
        <source>{parts} will come from RAM</source>
        <translation>{parts}将从内存读入</translation>
    </message>
    <message>
        <source>{parts} will come from disk</source>
        <translation>{parts}将从磁盘读入</translation>
    </message>
    <message>
        <source>what is free now</source>
        <translation>当前空闲的部分</translation>
    </message>
    <message>
        <source>vision tower</source>
        <translation>视觉塔</translation>
    </message>
    <message>
        <source>projector</source>
        <translation>投影层</translation>
    </message>
    <message>
        <source>vision expert</source>
        <translation>视觉专家</translation>
    </message>
    <message>
        <source>language expert</source>
        <translation>语言专家</translation>
    </message>
    <message>
        <source>decoder norms</source>
        <translation>解码器归一化层</translation>
    </message>
    <message>
        <source>embedding</source>
        <translation>词嵌入</translation>
    </message>
    <message>
        <source>lm_head</source>
        <translation>lm_head</translation>
    </message>
    <message>
        <source>key/value cache</source>
        <translation>键值缓存</translation>
    </message>
    <message>
        <source>activations</source>
        <translation>激活值</translation>
    </message>
    <message>
        <source>stream buffers</source>
        <translation>流式缓冲区</translation>
    </message>
    <message>
        <source>looking at a picture</source>
        <translation>查看图片</translation>
    </message>
    <message>
        <source>reading the picture</source>
        <translation>读入图片</translation>
    </message>
    <message>
        <source>reading the question</source>
        <translation>读入问题</translation>
    </message>
    <message>
        <source>answering</source>
        <translation>回答</translation>
    </message>
    <message>
        <source>The plan as bars</source>
        <translation>以条形图表示的内存计划</translation>
    </message>
    <message>
        <source>hatched: comes in for each use</source>
        <translation>斜纹：每次使用时读入</translation>
    </message>
    <message>
        <source>{device}: {peak} at the peak, {budget} may be used</source>
        <translation>{device}：峰值 {peak}，可用 {budget}</translation>
    </message>
    <message>
        <source>RAM now</source>
        <translation>当前内存</translation>
    </message>
    <message>
        <source>RAM now: the engine {engine}, other programs {others}, free {free} of {total}.</source>
        <translation>当前内存：引擎 {engine}，其他程序 {others}，空闲 {free}，共 {total}。</translation>
    </message>
</context>
<context>
    <name>Overlay</name>
    <message>
        <source>Choose a part of the screen</source>
        <translation>选择屏幕的一部分</translation>
    </message>
    <message>
        <source>Draw a rectangle. Enter takes the whole screen, Esc gives up.</source>
        <translation>画一个矩形。按 Enter 截取整个屏幕，按 Esc 放弃。</translation>
    </message>
</context>
<context>
    <name>Pages</name>
    <message>
        <source>Chat</source>
        <translation>对话</translation>
    </message>
    <message>
        <source>Batch</source>
        <translation>批处理</translation>
    </message>
    <message>
        <source>Convert</source>
        <translation>转换</translation>
    </message>
    <message>
        <source>Memory</source>
        <translation>内存</translation>
    </message>
    <message>
        <source>Settings</source>
        <translation>设置</translation>
    </message>
    <message>
        <source>About</source>
        <translation>关于</translation>
    </message>
</context>
<context>
    <name>PicturePanel</name>
    <message>
        <source>Picture</source>
        <translation>图片</translation>
    </message>
    <message>
        <source>The picture of this conversation</source>
        <translation>这个对话的图片</translation>
    </message>
    <message>
        <source>Drop a picture here,
paste one with Ctrl+V,
or open a file.</source>
        <translation>把图片拖到这里，
用 Ctrl+V 粘贴，
或打开文件。</translation>
    </message>
    <message>
        <source>Open picture files (Ctrl+O)</source>
        <translation>打开图片文件 (Ctrl+O)</translation>
    </message>
    <message>
        <source>Paste a picture</source>
        <translation>粘贴图片</translation>
    </message>
    <message>
        <source>Take a part of the screen (Ctrl+Shift+S)</source>
        <translation>截取屏幕的一部分 (Ctrl+Shift+S)</translation>
    </message>
    <message>
        <source>Larger</source>
        <translation>放大</translation>
    </message>
    <message>
        <source>Smaller</source>
        <translation>缩小</translation>
    </message>
    <message>
        <source>Fit</source>
        <translation>适合窗口</translation>
    </message>
    <message>
        <source>Turn the view</source>
        <translation>旋转视图</translation>
    </message>
    <message>
        <source>What the model sees</source>
        <translation>模型看到的图像</translation>
    </message>
    <message>
        <source>Drop the picture</source>
        <translation>放下图片</translation>
    </message>
    <message>
        <source>{address} is in the network, and this program fetches nothing from there. Save the picture, and drop the file.</source>
        <translation>{address} 在网络上，本程序不会从网络获取任何内容。请先保存图片，再拖入文件。</translation>
    </message>
    <message>
        <source>There is no picture on the clipboard.</source>
        <translation>剪贴板上没有图片。</translation>
    </message>
    <message>
        <source>What was dropped is no picture.</source>
        <translation>拖入的内容不是图片。</translation>
    </message>
    <message>
        <source>Pictures</source>
        <translation>图片</translation>
    </message>
    <message>
        <source>Open pictures</source>
        <translation>打开图片</translation>
    </message>
    <message>
        <source>On Wayland no program may look at the screen. Take the picture with the desktop&apos;s own key, and paste it here with Ctrl+V.</source>
        <translation>在 Wayland 上程序不能查看屏幕。请用桌面自带的截图键截图，再用 Ctrl+V 粘贴到这里。</translation>
    </message>
    <message>
        <source>{width} x {height}, {format}</source>
        <translation>{width} x {height}，{format}</translation>
    </message>
    <message>
        <source> - as the model sees it: 1344 x 1344</source>
        <translation> - 模型看到的大小：1344 x 1344</translation>
    </message>
</context>
<context>
    <name>Presets</name>
    <message>
        <source>Describe</source>
        <translation>描述</translation>
    </message>
    <message>
        <source>Describe this image in detail.</source>
        <translation>请详细描述这张图片。</translation>
    </message>
    <message>
        <source>Read all text</source>
        <translation>读取全部文字</translation>
    </message>
    <message>
        <source>Read all text in this image and write it as Markdown.</source>
        <translation>读取图片中的全部文字，并写成 Markdown。</translation>
    </message>
    <message>
        <source>Table to CSV</source>
        <translation>表格转 CSV</translation>
    </message>
    <message>
        <source>Write the table in this image as CSV.</source>
        <translation>把图片中的表格写成 CSV。</translation>
    </message>
    <message>
        <source>Fields as JSON</source>
        <translation>字段转 JSON</translation>
    </message>
    <message>
        <source>Extract all fields of this document as JSON.</source>
        <translation>提取这份文件的所有字段，写成 JSON。</translation>
    </message>
    <message>
        <source>Explain the chart</source>
        <translation>解释图表</translation>
    </message>
    <message>
        <source>Explain what this chart shows.</source>
        <translation>请解释这张图表说明了什么。</translation>
    </message>
    <message>
        <source>Translate</source>
        <translation>翻译</translation>
    </message>
    <message>
        <source>Translate all text in this image into English.</source>
        <translation>把图片中的全部文字翻译成中文。</translation>
    </message>
    <message>
        <source>Presets</source>
        <translation>预设</translation>
    </message>
    <message>
        <source>Question presets</source>
        <translation>预设问题</translation>
    </message>
    <message>
        <source>Keep this question as a preset</source>
        <translation>将此问题保存为预设</translation>
    </message>
</context>
<context>
    <name>Prose</name>
    <message>
        <source>Answer</source>
        <translation>回答</translation>
    </message>
    <message>
        <source>Open this address?</source>
        <translation>打开这个地址吗？</translation>
    </message>
    <message>
        <source>The answer links to

{address}</source>
        <translation>回答中的链接指向

{address}</translation>
    </message>
</context>
<context>
    <name>Quality</name>
    <message>
        <source>Quality report</source>
        <translation>质量报告</translation>
    </message>
    <message>
        <source>Open the whole report</source>
        <translation>打开完整报告</translation>
    </message>
    <message>
        <source>{after} instead of {before}, {times:.1f} times smaller.</source>
        <translation>{after}，原来 {before}，缩小到 1/{times:.1f}。</translation>
    </message>
    <message>
        <source>The percentage is the error of a part&apos;s outputs on samples held out, against round to nearest (100%): smaller is better.</source>
        <translation>百分比是该部分在留出样本上的输出误差，以就近舍入为 100%：越小越好。</translation>
    </message>
    <message>
        <source>Rounded to nearest, not calibrated.</source>
        <translation>就近舍入，未校准。</translation>
    </message>
    <message>
        <source>Bytes of each part</source>
        <translation>各部分的字节数</translation>
    </message>
</context>
<context>
    <name>SamplingButton</name>
    <message>
        <source>How answers are made</source>
        <translation>回答方式</translation>
    </message>
    <message>
        <source>Free {temperature:.2f}</source>
        <translation>自由 {temperature:.2f}</translation>
    </message>
    <message>
        <source>Exact</source>
        <translation>精确</translation>
    </message>
</context>
<context>
    <name>SamplingSheet</name>
    <message>
        <source>How answers are made</source>
        <translation>回答方式</translation>
    </message>
    <message>
        <source>All as at first</source>
        <translation>全部恢复默认</translation>
    </message>
</context>
<context>
    <name>Settings</name>
    <message>
        <source>Settings</source>
        <translation>设置</translation>
    </message>
    <message>
        <source>Appearance</source>
        <translation>外观</translation>
    </message>
    <message>
        <source>Model</source>
        <translation>模型</translation>
    </message>
    <message>
        <source>Answers</source>
        <translation>回答</translation>
    </message>
    <message>
        <source>Language</source>
        <translation>语言</translation>
    </message>
    <message>
        <source>The language of the window.</source>
        <translation>窗口的语言。</translation>
    </message>
    <message>
        <source>As the system</source>
        <translation>跟随系统</translation>
    </message>
    <message>
        <source>Theme</source>
        <translation>主题</translation>
    </message>
    <message>
        <source>Light or dark colours.</source>
        <translation>浅色或深色。</translation>
    </message>
    <message>
        <source>Light</source>
        <translation>浅色</translation>
    </message>
    <message>
        <source>Dark</source>
        <translation>深色</translation>
    </message>
    <message>
        <source>Font size</source>
        <translation>字号</translation>
    </message>
    <message>
        <source>In points; Ctrl+Plus and Ctrl+Minus change it too.</source>
        <translation>以磅为单位；也可用 Ctrl+加号 和 Ctrl+减号 调整。</translation>
    </message>
    <message>
        <source>Unload when idle</source>
        <translation>空闲时卸载</translation>
    </message>
    <message>
        <source>Minutes without a question after which the model gives its memory back. 0: never.</source>
        <translation>多少分钟没有提问后释放模型占用的内存。0：从不。</translation>
    </message>
    <message>
        <source>Video memory</source>
        <translation>显存</translation>
    </message>
    <message>
        <source>The most the model may use, such as 6GiB. Empty: what is free.</source>
        <translation>模型最多可用的量，例如 6GiB。留空：使用空闲的部分。</translation>
    </message>
    <message>
        <source>RAM</source>
        <translation>内存</translation>
    </message>
    <message>
        <source>The most the model may use, such as 12GiB. Empty: what is free.</source>
        <translation>模型最多可用的量，例如 12GiB。留空：使用空闲的部分。</translation>
    </message>
    <message>
        <source>Longest answer</source>
        <translation>最长回答</translation>
    </message>
    <message>
        <source>In tokens; a word is one or two of them.</source>
        <translation>以 token 计；一个词约为一到两个。</translation>
    </message>
    <message>
        <source>Temperature</source>
        <translation>温度</translation>
    </message>
    <message>
        <source>0: the likeliest word each time, best for reading and facts. Higher: freer, and more often wrong.</source>
        <translation>0：每次取最可能的词，最适合读取文字和事实。越高越自由，也越容易出错。</translation>
    </message>
    <message>
        <source>Top p</source>
        <translation>Top p</translation>
    </message>
    <message>
        <source>Keeps only the likeliest words that together reach this share. 1: all words.</source>
        <translation>只保留合计达到这一比例的最可能的词。1：全部。</translation>
    </message>
    <message>
        <source>Top k</source>
        <translation>Top k</translation>
    </message>
    <message>
        <source>Keeps only this many likeliest words. 0: all words.</source>
        <translation>只保留这么多个最可能的词。0：全部。</translation>
    </message>
    <message>
        <source>Repetition penalty</source>
        <translation>重复惩罚</translation>
    </message>
    <message>
        <source>Above 1 words that occurred already become less likely. 1: off.</source>
        <translation>大于 1 时，已出现的词可能性降低。1：关闭。</translation>
    </message>
</context>
<context>
    <name>Several</name>
    <message>
        <source>The model takes one picture per conversation.</source>
        <translation>每个对话只能有一张图片。</translation>
    </message>
    <message>
        <source>A new conversation keeps this one in the list. If the picture is replaced, the answers so far stay, though they were about the other one.</source>
        <translation>新建对话时，这个对话仍留在列表中。如果替换图片，之前的回答会保留，但它们说的是另一张图片。</translation>
    </message>
    <message>
        <source>New conversation with this picture</source>
        <translation>用这张图片开始新对话</translation>
    </message>
    <message>
        <source>Replace the picture</source>
        <translation>替换图片</translation>
    </message>
    <message>
        <source>One question about all of them</source>
        <translation>对所有图片提同一个问题</translation>
    </message>
    <message>
        <source>A conversation for each</source>
        <translation>每张图片新建一个对话</translation>
    </message>
    <message>
        <source>A folder was dropped.</source>
        <translation>拖入了一个文件夹。</translation>
    </message>
    <message>
        <source>{count} files were dropped.</source>
        <translation>拖入了 {count} 个文件。</translation>
    </message>
</context>
<context>
    <name>Sidebar</name>
    <message>
        <source>New conversation</source>
        <translation>新对话</translation>
    </message>
    <message>
        <source>Search</source>
        <translation>搜索</translation>
    </message>
    <message>
        <source>Search in conversations</source>
        <translation>搜索对话</translation>
    </message>
    <message>
        <source>Import…</source>
        <translation>导入…</translation>
    </message>
    <message>
        <source>Import a conversation that was exported as JSON</source>
        <translation>导入以 JSON 导出的对话</translation>
    </message>
    <message>
        <source>Undo delete</source>
        <translation>撤销删除</translation>
    </message>
    <message>
        <source>Conversations</source>
        <translation>对话列表</translation>
    </message>
    <message>
        <source>An answer is still coming in this conversation. Stop it first.</source>
        <translation>这个对话仍在回答中，请先停止。</translation>
    </message>
    <message>
        <source>Import a conversation</source>
        <translation>导入对话</translation>
    </message>
    <message>
        <source>Rename</source>
        <translation>重命名</translation>
    </message>
    <message>
        <source>Pin or unpin</source>
        <translation>置顶或取消置顶</translation>
    </message>
    <message>
        <source>Export</source>
        <translation>导出</translation>
    </message>
    <message>
        <source>Delete</source>
        <translation>删除</translation>
    </message>
    <message>
        <source>Title</source>
        <translation>标题</translation>
    </message>
    <message>
        <source>Export the conversation</source>
        <translation>导出对话</translation>
    </message>
</context>
<context>
    <name>Transcript</name>
    <message>
        <source>Conversation</source>
        <translation>对话</translation>
    </message>
</context>
<context>
    <name>TurnView</name>
    <message>
        <source>Question</source>
        <translation>问题</translation>
    </message>
    <message>
        <source>Copy as text</source>
        <translation>复制为文本</translation>
    </message>
    <message>
        <source>Copy as Markdown</source>
        <translation>复制为 Markdown</translation>
    </message>
    <message>
        <source>Answer again</source>
        <translation>重新回答</translation>
    </message>
    <message>
        <source>Edit the question</source>
        <translation>修改问题</translation>
    </message>
    <message>
        <source>Continue</source>
        <translation>继续</translation>
    </message>
    <message>
        <source>Let the answer go on where it was cut</source>
        <translation>从中断的地方继续回答</translation>
    </message>
    <message>
        <source>Earlier version</source>
        <translation>上一版本</translation>
    </message>
    <message>
        <source>Later version</source>
        <translation>下一版本</translation>
    </message>
    <message>
        <source>*thinking…*</source>
        <translation>*思考中…*</translation>
    </message>
    <message>
        <source>The program ended while this was answered. Answer again?</source>
        <translation>回答时程序已结束。重新回答吗？</translation>
    </message>
    <message>
        <source>{tokens} tokens, {rate:.1f} tokens/s; picture {encode:.2f} s, reading {prefill:.2f} s, answering {decode:.2f} s</source>
        <translation>{tokens} 个 token，每秒 {rate:.1f} 个；看图 {encode:.2f} 秒，读题 {prefill:.2f} 秒，回答 {decode:.2f} 秒</translation>
    </message>
    <message>
        <source>; stopped</source>
        <translation>；已停止</translation>
    </message>
    <message>
        <source>; its length limit ended it</source>
        <translation>；因长度上限而结束</translation>
    </message>
</context>
<context>
    <name>Welcome</name>
    <message>
        <source>Ask about a picture</source>
        <translation>就一张图片提问</translation>
    </message>
    <message>
        <source>Try the small demo model</source>
        <translation>试用小型演示模型</translation>
    </message>
    <message>
        <source>Open a model folder</source>
        <translation>打开模型文件夹</translation>
    </message>
    <message>
        <source>Convert a downloaded checkpoint</source>
        <translation>转换已下载的权重</translation>
    </message>
    <message>
        <source>Drop a picture at the right, and write a question below.</source>
        <translation>把图片拖到右侧，在下方写下问题。</translation>
    </message>
    <message>
        <source>Everything stays on this computer. First choose a model.</source>
        <translation>一切都留在这台电脑上。请先选择模型。</translation>
    </message>
</context>
</TS>
